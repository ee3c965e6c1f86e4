// Looks whether the service answers, says so where it does not, and fills the page anew when something has changed.
let state = null, wasAway = false;
const PACE_MS = 5000;
const show = (sentence) => {
  element.innerHTML = "";
  if (!sentence) return;
  const banner = document.createElement("p");
  banner.className = "m-banner";
  banner.setAttribute("role", "alert");
  banner.textContent = sentence;
  element.append(banner);
};
const look = async () => {
  clearTimeout(look.next);
  let pace = PACE_MS;
  try {
    const status = await (await fetch("/status")).json();
    show(status.detail);
    if (!status.ready) {
      wasAway = true;
      pace = 1000 * status.wait_s;
    } else if (status.state !== state || wasAway) {
      state = status.state;
      wasAway = false;
      trigger("opened");
    }
  } catch {
    wasAway = true;
    show("The page's server cannot be reached; the page looks again by itself.");
  }
  look.next = setTimeout(look, pace);
};
document.addEventListener("visibilitychange", () => document.hidden || look());
modiste.look = look;
look();
