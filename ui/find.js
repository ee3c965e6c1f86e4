// The results: back, the address, and why a neighbour is one. Triggers "why".
const PAUSE_MS = 250;
element.addEventListener("click", (event) => {
  if (event.target.closest("[data-back]")) history.back();
  const asked = event.target.closest("[data-why]");
  if (asked) trigger("why", { item_id: asked.dataset.why });
});
// The key H asks about the card that was looked at last, and about the first one before that.
element.addEventListener("focusin", (event) => {
  const chosen = event.target.closest(".m-card")?.querySelector("[data-why]");
  if (!chosen) return;
  element.querySelectorAll("[data-key]").forEach((one) => delete one.dataset.key);
  chosen.dataset.key = "h";
});
watch("value", () => {
  document.body.toggleAttribute("data-way-back", (history.state?.depth ?? 0) > 1);
  modiste.closeMatch?.();
  const head = element.querySelector("[data-link]");
  if (head && modiste.tab === "find") modiste.link(JSON.parse(head.dataset.link));
});
// A control has changed: asks again once it rests.
modiste.findAgain = () => {
  clearTimeout(modiste.findAgain.next);
  const { token, item_id } = modiste.panel.value;
  if (token || item_id) modiste.findAgain.next = setTimeout(() => modiste.ask({ remember: false }), PAUSE_MS);
};
