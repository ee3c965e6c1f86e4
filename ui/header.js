const help = element.querySelector("#help");
element.querySelector("#help-button").addEventListener("click", () => help.showModal());
// A click beside the panel closes it.
help.addEventListener("click", (event) => event.target === help && help.close());
element.querySelector("#theme-button").addEventListener("click", modiste.switchTheme);
element.querySelector("#save-view").addEventListener("click", modiste.saveView);
modiste.opened();
