// Shows jobs of the part that `props.part` names: looks again, by triggering "look", while one runs.
let ran = false;
const runs = () => element.querySelector("[data-running]") !== null;
setInterval(() => element.offsetParent && runs() && trigger("look"), 1000);
watch("value", () => {
  if (ran && !runs()) {
    trigger("look"); // Once more: an answer that was on its way when the job was ordered knows nothing of it.
    modiste.look();
    modiste.parts[props.part].over?.();
  }
  ran = runs();
});
(modiste.parts ??= {})[props.part] = { look: () => trigger("look") };
