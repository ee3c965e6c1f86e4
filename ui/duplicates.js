// Deletes items once somebody has said so twice; triggers "turn" with where another page starts.
let doomed = null;
const dialog = () => element.querySelector("dialog");
const remove = async (item) => {
  const row = [...element.querySelectorAll("li[data-item]")].find((one) => one.dataset.item === item);
  const refusal = await server.delete(item).catch(() => "The page's server cannot be reached; is it still running?");
  if (refusal) return modiste.say(refusal);
  row.classList.add("m-settled");
  row.querySelector(".m-settled-text").textContent = "Deleted.";
  for (const button of row.querySelectorAll("button")) button.disabled = true;
  modiste.look();
};
element.addEventListener("click", (event) => {
  const wanted = event.target.closest("[data-delete]"), answer = event.target.closest("[data-answer]");
  const page = event.target.closest("[data-start]");
  if (wanted) {
    doomed = wanted.dataset.delete;
    element.querySelector("[data-delete-name]").textContent = doomed;
    dialog().showModal();
  }
  if (answer) {
    dialog().close();
    if (answer.dataset.answer === "yes" && doomed !== null) remove(doomed);
    doomed = null;
  }
  if (page) trigger("turn", { start: Number(page.dataset.start) });
});
