// What all of the page shares: tabs, history, keys, uploads. Components register their own parts as they load.
window.modiste = (() => {
  const ASKED_IN = ["find", "label"];
  const self = { tab: "find", panel: null, asked: {}, filled: new Set(), started: false };

  // Called when the page's first component is there: what stood in its place goes.
  self.opened = () => requestAnimationFrame(() => document.getElementById("m-loading")?.remove());
  setTimeout(() => {
    const sentence = document.querySelector("#m-loading p");
    if (sentence) sentence.textContent = "The page takes long to open. If nothing comes, look whether its server still runs, and load the page again.";
  }, 15000);

  // Shows another tab, as a click on it does.
  self.openTab = (name) => document.querySelector(`#tabs [data-tab-id=${name}]`)?.click();

  // Called when another tab is shown: what was asked elsewhere is asked here too.
  self.showTab = (name) => {
    self.tab = name;
    const title = document.querySelector(`#tabs [data-tab-id=${name}]`)?.textContent;
    document.title = title ? `${title} · Modiste` : "Modiste";
    document.body.dataset.tab = name;
    const value = self.panel?.value;
    const isNew = value && (value.token || value.item_id) && self.asked[name] !== JSON.stringify(value);
    // What was chosen in another tab is one step further; what was asked there is not.
    if (ASKED_IN.includes(name) && isNew) self.ask({ remember: JSON.stringify(value) !== JSON.stringify(history.state?.value) });
    if (!self.started) return; // Before, the address says where to go.
    history.replaceState({ ...history.state, tab: name }, "");
    self.link({ tab: name });
  };

  // Asks about the panel's photo or item in the tab that is shown.
  self.ask = ({ remember = true } = {}) => {
    const value = self.panel?.value;
    if (!value || !(value.token || value.item_id)) return self.say("Choose a photo first: drop one, paste one, or click an example.");
    if (!ASKED_IN.includes(self.tab)) return self.openTab("find"); // which asks
    self.asked[self.tab] = JSON.stringify(value);
    if (remember) history.pushState({ value, tab: self.tab, depth: (history.state?.depth ?? 0) + 1 }, "", location.href);
    self.link({ item: value.item_id || null });
    self.panel.ask(self.tab);
  };

  // Asks about an item of the gallery.
  self.search = (item_id) => {
    self.panel.set({ token: null, item_id, box: null, name: item_id });
    if (self.tab === "find") self.ask();
    else self.openTab("find"); // which asks
    window.scrollTo({ top: 0, behavior: "smooth" });
  };

  // Writes what is shown into the address, so that it can be sent to somebody; null takes a parameter away.
  self.link = (parameters) => {
    const url = new URL(location.href);
    for (const [name, value] of Object.entries(parameters)) {
      if (value === null || value === "" || value === undefined) url.searchParams.delete(name);
      else url.searchParams.set(name, value);
    }
    history.replaceState(history.state, "", url);
  };

  // Called by each tab whose controls the address sets, once they are; when all are set, goes where the address says.
  self.start = (whose = "find") => {
    self.filled.add(whose);
    if (self.started || !ASKED_IN.every((name) => self.filled.has(name))) return;
    self.started = true;
    const asked = new URL(location.href).searchParams;
    const item_id = asked.get("item");
    if (item_id) self.panel.set({ token: null, item_id, box: null, name: item_id });
    const tab = asked.get("tab") || "find";
    if (tab !== self.tab) self.openTab(tab);
    else if (item_id) self.ask({ remember: false });
    // How many questions lie before this one, where there is a way back.
    const depth = history.state?.depth ?? (item_id ? 1 : 0);
    history.replaceState({ value: self.panel.value, tab: self.tab, depth }, "", location.href);
  };

  // A sentence for a moment, which screen readers read out.
  self.say = (sentence) => {
    const toast = document.getElementById("toast");
    if (!toast) return;
    toast.textContent = sentence;
    toast.hidden = false;
    clearTimeout(self.silence);
    self.silence = setTimeout(() => (toast.hidden = true), 6000);
  };

  // Sends a file; resolves to { token, name, size }, or rejects with an Error that is a sentence.
  self.upload = (file, signal) =>
    fetch("/uploads?name=" + encodeURIComponent(file.name || "photo.jpg"), { method: "POST", body: file, signal }).then(
      async (response) => {
        const answer = await response.json().catch(() => ({}));
        if (!response.ok) throw new Error(answer.detail || `The page did not take '${file.name}' (${response.status}).`);
        return answer;
      },
      (error) => {
        if (error.name === "AbortError") throw error;
        throw Object.assign(new Error("The page's server cannot be reached; is it still running?"), { isAway: true });
      },
    );

  // Saves a file that the page's server has made.
  self.download = (token) => save("/downloads/" + token, "");

  // Saves what is shown as a PNG. The script that draws it is loaded when it is first used.
  self.saveView = async () => {
    if (self.saving) return;
    self.saving = true;
    self.say("Drawing this view …");
    try {
      if (!window.modernScreenshot) await load("/scripts/modern-screenshot.js");
      const picture = await modernScreenshot.domToBlob(document.querySelector(".gradio-container"), {
        type: "image/png",
        scale: Math.min(2, Math.max(1, devicePixelRatio)),
        // Larger ones are scaled down; browsers draw no more.
        maximumCanvasSize: 8192,
        backgroundColor: getComputedStyle(document.body).backgroundColor,
        font: false,
        // What is not seen, or is not there yet, would be waited for.
        filter: (node) => !(node.hidden || node.id === "toast" || /^(dialog|video|iframe)$/i.test(node.tagName) || (node.tagName === "IMG" && !node.currentSrc)),
      });
      const address = URL.createObjectURL(picture);
      save(address, fileName("png"));
      setTimeout(() => URL.revokeObjectURL(address), 60000);
      self.say("This view is saved among your downloads.");
    } catch (error) {
      console.warn(error);
      self.say("This view could not be drawn; use your browser's own print or screenshot, or the Report tab.");
    } finally {
      self.saving = false;
    }
  };
  const load = (address) =>
    new Promise((done, failed) =>
      document.head.append(Object.assign(document.createElement("script"), { src: address, onload: done, onerror: failed })),
    );
  const save = (address, name) => {
    const link = Object.assign(document.createElement("a"), { href: address, download: name });
    document.body.append(link);
    link.click();
    link.remove();
  };
  // Such as modiste-find-shirt-12-2026-11-22-0930.png.
  const fileName = (ending) => {
    const now = new Date(Date.now() - new Date().getTimezoneOffset() * 60000).toISOString();
    const subject = (self.panel?.value?.name || "").replace(/\.[a-z]+$/i, "").replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40);
    const parts = ["modiste", self.tab, ASKED_IN.includes(self.tab) && subject, now.slice(0, 10), now.slice(11, 16).replace(":", "")];
    return parts.filter(Boolean).join("-").replace(/-+/g, "-") + "." + ending;
  };

  // Clicks what a key stands for, where it is shown.
  const press = (selector) => [...document.querySelectorAll(selector)].find((one) => one.offsetParent && !one.disabled)?.click();
  const keys = {
    "ctrl+o": () => self.panel?.choose(),
    enter: () => (self.tab === "report" ? press("#make-report") : self.ask()),
    h: () => press("[data-key=h] button, [data-key=h], #heat-map"),
    r: () => self.panel?.resetBox(),
    "ctrl+s": () => press("#save-view"),
    "?": () => press("#help-button"),
  };
  const TYPED_IN = "input, textarea, select, [contenteditable], [role=listbox], [role=combobox], [role=slider]";
  document.addEventListener("keydown", (event) => {
    const name = (event.ctrlKey || event.metaKey ? "ctrl+" : "") + (event.key || "").toLowerCase();
    if (!Object.hasOwn(keys, name) || event.altKey || event.isComposing || event.defaultPrevented) return;
    if (event.repeat || document.querySelector("dialog[open]")) return name.startsWith("ctrl+") && event.preventDefault();
    const typing = event.target.closest?.(TYPED_IN);
    const pressing = event.key === "Enter" && event.target.closest?.("button, a, summary, [role=button], [tabindex]");
    if ((typing || pressing) && !name.startsWith("ctrl+")) return;
    event.preventDefault();
    keys[name]();
  });

  // Whatever names an item to search from, in whichever tab.
  document.addEventListener("click", (event) => {
    const one = event.target.closest?.("[data-search]");
    if (one) self.search(one.dataset.search);
  });

  window.addEventListener("popstate", ({ state }) => {
    if (!state || !self.panel) return;
    self.panel.set(state.value);
    if (state.tab !== self.tab) self.openTab(state.tab);
    else if (state.value && (state.value.token || state.value.item_id)) self.ask({ remember: false });
    else self.panel.ask(state.tab); // which says how to begin
  });

  // Light or dark: what was chosen here, else what the system says. Gradio writes the system's onto the body.
  const THEME = "modiste-theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => {
    try {
      return localStorage.getItem(THEME);
    } catch {
      return self.theme; // Storage is off.
    }
  };
  self.isDark = () => (chosen() ? chosen() === "dark" : system.matches);
  const paint = () => {
    const isDark = self.isDark();
    document.documentElement.classList.toggle("m-dark", isDark);
    document.documentElement.classList.toggle("m-light", !isDark);
    document.documentElement.style.colorScheme = isDark ? "dark" : "light";
    if (document.body && document.body.classList.contains("dark") !== isDark) document.body.classList.toggle("dark", isDark);
  };
  self.switchTheme = () => {
    self.theme = self.isDark() ? "light" : "dark";
    try {
      localStorage.setItem(THEME, self.theme);
    } catch {} // Storage is off: it holds until the page is left.
    paint();
  };
  system.addEventListener("change", paint);
  paint();
  document.addEventListener("DOMContentLoaded", () => {
    document.body.dataset.tab = self.tab;
    paint();
    new MutationObserver(paint).observe(document.body, { attributeFilter: ["class"] });
  });
  return self;
})();
