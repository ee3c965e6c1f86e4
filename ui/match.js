// The match map of a neighbour, which goes when something else is asked.
const close = () => element.replaceChildren();
modiste.closeMatch = close;
element.addEventListener("click", (event) => event.target.closest("[data-close]") && close());
watch("value", () => element.scrollIntoView({ behavior: "smooth", block: "nearest" }));
