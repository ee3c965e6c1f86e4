const help = element.querySelector("#help");
element.querySelector("#help-button").addEventListener("click", () => help.showModal());
element.querySelector("#theme-button").addEventListener("click", () => {
  const isDark = document.body.classList.toggle("dark");
  localStorage.setItem("modiste-theme", isDark ? "dark" : "light");
});
element.querySelector("#save-view").addEventListener("click", () => modiste.saveView?.());
