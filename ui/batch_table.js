// Triggers "turn" for another page or order; a photo that is clicked is searched from.
element.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-sort], [data-page]");
  if (button) {
    const { sort, page } = button.dataset;
    return trigger("turn", sort ? { sort } : { page: Number(page) });
  }
  const row = event.target.closest?.("tr[data-url]");
  if (!row || String(getSelection())) return;
  const { url, token, zipped, name } = row.dataset;
  try {
    const held = zipped === "yes" ? await take(url, name) : token;
    modiste.panel.set({ token: held, item_id: null, box: null, name });
    modiste.openTab("find");
    window.scrollTo({ top: 0, behavior: "smooth" });
  } catch (error) {
    modiste.say(error.message);
  }
});

// Holds a photo in a zip by itself; its token.
async function take(url, name) {
  const response = await fetch(`${url}?name=${encodeURIComponent(name)}`, { method: "POST" });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.detail || `The page did not take '${name}' (${response.status}).`);
  return answer.token;
}
