// The report that was made, shown without any right to run something, and to be saved.
element.addEventListener("click", (event) => {
  const made = event.target.closest("[data-save]")?.closest("[data-report]");
  if (made) modiste.download(made.dataset.report);
});
watch("value", async () => {
  const made = element.querySelector("[data-report]");
  if (!made) return;
  try {
    const response = await fetch("/downloads/" + made.dataset.report);
    if (!response.ok) throw new Error(response.status);
    made.querySelector("iframe").srcdoc = await response.text();
  } catch {
    made.querySelector("iframe").remove();
    modiste.say("The report cannot be shown here; save it, or make it again.");
  }
});
