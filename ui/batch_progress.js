// Triggers "cancel", "resume", "again" or "save".
element.addEventListener("click", (event) => {
  const act = event.target.closest?.("[data-act]")?.dataset.act;
  if (act === "cancel") trigger("cancel");
  if (act === "resume") trigger("resume");
  if (act === "again") trigger("again");
  if (act === "csv" || act === "json") trigger("save", { kind: act });
});
