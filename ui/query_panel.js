// Triggers "find" or "label".
modiste.panel = {
  get value() { return props.value; },
  set(value) { props.value = value; },
  choose() {},
  resetBox() {},
  ask(tab) { trigger(tab === "label" ? "label" : "find"); },
};
