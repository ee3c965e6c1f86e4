// Triggers "pick" with the label whose items are wanted, from bars and from a page of items alike.
element.addEventListener("click", (event) => {
  const { target, label, after } = event.target.closest("[data-label]")?.dataset ?? {};
  if (label === undefined) return;
  trigger("pick", { target, label, after: after ?? "" });
  if (matchMedia("(max-width: 640px)").matches)
    setTimeout(() => document.getElementById("catalog-items").scrollIntoView({ behavior: "smooth" }), 300);
});
