from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.keys import add_key
from service.settings import LOCAL_HOSTS, Settings, SettingsError, is_loopback, settings_table


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in [name for name in os.environ if name.upper().startswith("MODISTE_")]:
        monkeypatch.delenv(name)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "modiste.toml"
    path.write_text(text)
    return path


def test_what_is_not_given_has_a_default():
    settings = Settings.read(gallery="shoes")
    assert settings.gallery == Path("shoes")
    assert (settings.host, settings.port, settings.keys_file, settings.rate_limit) == (
        *("127.0.0.1", 8000, None, "100/second"),
    )
    assert settings.trusted_hosts == list(LOCAL_HOSTS)
    assert (settings.catalogs, settings.encoders, settings.cors_origins, settings.lanes) == ({}, [], [], None)
    assert settings.is_loopback


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path, monkeypatch):
    file = write(tmp_path, 'gallery = "of the file"\nport = 1\nplaces = 1\nmax_photos = 1\n')
    monkeypatch.setenv("MODISTE_PORT", "2")
    monkeypatch.setenv("MODISTE_PLACES", "2")
    settings = Settings.read(file, port=3)
    assert (settings.port, settings.places, settings.max_photos) == (3, 2, 1)
    assert settings.gallery == Path("of the file")
    assert settings.max_body_mb == 25


def test_an_option_that_was_not_given_on_the_command_line_hides_nothing(monkeypatch):
    monkeypatch.setenv("MODISTE_PORT", "2")
    assert Settings.read(gallery="shoes", port=None).port == 2


def test_the_environment_may_name_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("MODISTE_CONFIG", str(write(tmp_path, 'gallery = "a"\n')))
    assert Settings.read().gallery == Path("a")
    other = tmp_path / "other.toml"
    other.write_text('gallery = "b"\n')
    assert Settings.read(other).gallery == Path("b")


def test_one_file_does_not_linger(tmp_path):
    Settings.read(write(tmp_path, 'gallery = "a"\nport = 1\n'))
    assert (Settings.read(gallery="b").port, Settings(gallery="b").port) == (8000, 8000)
    with pytest.raises(SettingsError):
        Settings.read(write(tmp_path, 'gallery = "a"\nport = "x"\n'))
    assert Settings.read(gallery="b").port == 8000
    assert Settings(gallery="b").port == 8000


def test_catalogs_come_from_a_file_and_from_the_environment(tmp_path, monkeypatch):
    file = write(
        tmp_path,
        'gallery = "a"\n[catalogs.default]\npath = "shop.csv"\nformat = "csv"\n'
        'map = {item_id = "sku", image = "file"}\n',
    )
    source = Settings.read(file).catalogs["default"]
    assert (source.path, source.format, source.map) == (Path("shop.csv"), "csv", {"item_id": "sku", "image": "file"})
    monkeypatch.setenv("MODISTE_CATALOGS", '{"sale": {"path": "sale", "map": "item_id=sku,image=file"}}')
    catalogs = Settings.read(file).catalogs
    assert set(catalogs) == {"default", "sale"}
    assert catalogs["sale"].map == {"item_id": "sku", "image": "file"}
    monkeypatch.setenv("MODISTE_CATALOGS__SALE__FORMAT", "folder")
    assert Settings.read(file).catalogs["sale"].format == "folder"


def test_a_list_in_the_environment_is_names_with_commas_or_json(monkeypatch):
    monkeypatch.setenv("MODISTE_CORS_ORIGINS", "https://shop.example, https://desk.example")
    monkeypatch.setenv("MODISTE_ENCODERS", '["dinov2-small"]')
    settings = Settings.read(gallery="a")
    assert settings.cors_origins == ["https://shop.example", "https://desk.example"]
    assert settings.encoders == ["dinov2-small"]


def test_origins_are_as_browsers_write_them():
    assert Settings.read(gallery="a", cors_origins=["https://Shop.example"]).cors_origins == ["https://shop.example"]


def test_none_is_a_word(tmp_path, monkeypatch):
    file = write(tmp_path, 'gallery = "a"\nrate_limit = "none"\nlanes = "none"\nkeys_file = ""\n')
    settings = Settings.read(file)
    assert (settings.rate_limit, settings.lanes, settings.keys_file) == (None, None, None)
    monkeypatch.setenv("MODISTE_RATE_LIMIT", "None")
    assert Settings.read(gallery="a").rate_limit is None


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({}, r"The setting 'gallery' must be given: Folder of the gallery .* Set MODISTE_GALLERY, or gallery in the"),
        ({"gallery": "a", "ports": 1}, "There is no setting 'ports'. There are: gallery, catalogs,"),
        (
            {"gallery": "a", "port": "x"},
            r"The setting 'port' should be a valid integer, unable .*; 'x' came, from the command line\.",
        ),
        ({"gallery": "a", "port": 65536}, "'port' should be less than or equal to 65535; 65536 came"),
        ({"gallery": "a", "max_body_mb": 0}, "'max_body_mb' should be greater than or equal to 1; 0 came"),
        ({"gallery": "a", "deadline_s": 0}, "'deadline_s' should be greater than 0; 0 came"),
        (
            {"gallery": "a", "log_level": "loud"},
            "'log_level' should be 'debug', 'info', 'warning' or 'error'; 'loud' came",
        ),
        ({"gallery": "a", "rate_limit": "often"}, "'rate_limit' should be a number and a time, .* 'often' came, from"),
        ({"gallery": "a", "cors_origins": ["*"]}, r"'cors_origins' should be origins such as .* '\*' came"),
        ({"gallery": "a", "cors_origins": ["https://a.b/c"]}, "without a path; 'https://a.b/c' came"),
        ({"gallery": "a", "trusted_hosts": ["shop.*"]}, r"'trusted_hosts' should be names .* 'shop\.\*' came"),
        ({"gallery": "a", "trusted_hosts": ["*."]}, r"'trusted_hosts' should be names .* '\*\.' came"),
        ({"gallery": "a", "catalogs": {"x": {}}}, "The setting 'catalogs.x.path' is missing, from the command line"),
        (
            {"gallery": "a", "catalogs": {"x": {"path": "a", "paths": "b"}}},
            "'catalogs.x.paths' is no setting of a catalog; those are path, format and map",
        ),
        (
            {"gallery": "a", "catalogs": {"x": {"path": "a", "map": "colour"}}},
            "'catalogs.x.map' is not as it should be: A mapping is key=column pairs",
        ),
        (
            {"gallery": "a", "catalogs": {"x": {"path": "a", "map": {"sku": "b"}}}},
            "'catalogs.x.map' is not as it should",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_a_sentence(overrides, sentence):
    with pytest.raises(SettingsError, match=sentence) as error:
        Settings.read(**overrides)
    assert "pydantic" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_sentence_says_where_the_setting_came_from(tmp_path, monkeypatch):
    file = write(tmp_path, 'gallery = "a"\nport = "x"\n')
    with pytest.raises(SettingsError, match=r"'x' came, from .*modiste\.toml"):
        Settings.read(file)
    monkeypatch.setenv("modiste_port", "y")
    with pytest.raises(SettingsError, match=r"'y' came, from MODISTE_PORT"):
        Settings.read(file)
    monkeypatch.setenv("MODISTE_CATALOGS", "{")
    with pytest.raises(SettingsError, match=r"The environment has a setting that is no JSON: .*catalogs"):
        Settings.read(gallery="a")
    monkeypatch.delenv("MODISTE_CATALOGS")
    monkeypatch.setenv("MODISTE_ENCODERS", "[a")
    with pytest.raises(SettingsError, match=r"'encoders' should be a JSON list, or names with commas .*'\[a' came"):
        Settings.read(gallery="a", port=1)


def test_a_long_value_is_cut():
    with pytest.raises(SettingsError, match=r"x{99}\.{3} came"):
        Settings.read(gallery="a", port="x" * 500)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"port 1", "is no TOML: .*line 1"),
        (b"\xff", "is no TOML"),
        (b'prot = 1\ngallery = "a"', "has 'prot', which is no setting. There are: gallery, .*port"),
    ],
)
def test_a_file_that_is_none_is_a_sentence(tmp_path, content, sentence):
    (tmp_path / "a.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=sentence):
        Settings.read(tmp_path / "a.toml")


def test_a_file_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(SettingsError, match=r"settings file .*none\.toml cannot be read: No such file"):
        Settings.read(tmp_path / "none.toml")


def test_without_a_key_only_loopback_is_served(tmp_path):
    with pytest.raises(
        SettingsError,
        match=r"^Host 0\.0\.0\.0 .* loopback only until there is a key: `modiste key add NAME .* --keys FILE`",
    ):
        Settings.read(gallery="a", host="0.0.0.0")
    keys = tmp_path / "keys.json"
    with pytest.raises(SettingsError, match="There is no file of keys"):
        Settings.read(gallery="a", keys_file=keys)
    keys.write_text('{"keys": []}')
    keys.chmod(0o600)
    # A file without keys is as good as none.
    assert Settings.read(gallery="a", keys_file=keys).is_loopback
    with pytest.raises(SettingsError, match=rf"--keys {keys}`"):
        Settings.read(gallery="a", keys_file=keys, host="0.0.0.0")
    add_key(keys, "shop", "read")
    assert not Settings.read(gallery="a", keys_file=keys, host="0.0.0.0").is_loopback


def test_a_damaged_file_of_keys_is_found_at_the_start(tmp_path):
    (tmp_path / "keys.json").write_text("{}")
    (tmp_path / "keys.json").chmod(0o600)
    with pytest.raises(SettingsError, match=r"keys\.json is no file of keys"):
        Settings.read(gallery="a", keys_file=tmp_path / "keys.json")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        # A name may lead anywhere, whatever it looks like.
        ("localhost.shop.example", False),
        ("127.0.0.1.shop.example", False),
    ],
)
def test_loopback_is_known(host, expected):
    assert is_loopback(host) is expected


def test_trusted_hosts_are_completed(tmp_path):
    keys = tmp_path / "keys.json"
    add_key(keys, "shop", "read")
    names = Settings.read(gallery="a", keys_file=keys, host="10.0.0.1", trusted_hosts=["Shop.example"]).trusted_hosts
    assert names == ["shop.example", *LOCAL_HOSTS, "10.0.0.1"]
    # Addresses of IPv6 stand in brackets in the header.
    assert "[fd00::1]" in Settings.read(gallery="a", keys_file=keys, host="fd00::1").trusted_hosts
    everywhere = Settings.read(gallery="a", keys_file=keys, host="0.0.0.0").trusted_hosts
    assert everywhere == list(LOCAL_HOSTS)
    assert "*" in Settings.read(gallery="a", trusted_hosts=["*"]).trusted_hosts


def test_the_table_has_every_setting():
    rows = {name: (variable, default, description) for name, variable, default, description in settings_table()}
    assert list(rows) == list(Settings.model_fields)
    assert rows["gallery"] == ("MODISTE_GALLERY", "must be given", "Folder of the gallery that is served.")
    assert rows["port"][1] == "8000"
    assert rows["lanes"][1] == rows["encoders"][1] == rows["catalogs"][1] == "none"
    assert rows["trusted_hosts"][1] == "localhost, 127.0.0.1, [::1]"
    assert all(description.endswith(".") for *_, description in rows.values())


def test_settings_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        Settings.read(gallery="a").port = 1  # type: ignore[misc]
