// Looks whether the service answers, says so where it does not, and fills the page anew when something has changed.
// Triggers "opened".
const PACE_MS = 5000, LONGEST_MS = 20000;
let state = null, wasAway = false, said = null;

const show = (sentence) => {
  // Said once, not at each look: screen readers read it out.
  if (sentence === said) return;
  said = sentence;
  element.replaceChildren();
  if (!sentence) return;
  const banner = document.createElement("p");
  banner.className = "m-banner";
  banner.setAttribute("role", "alert");
  banner.textContent = sentence;
  element.append(banner);
};

const look = async () => {
  clearTimeout(look.next);
  const turn = (look.turn = (look.turn || 0) + 1);
  let pace = PACE_MS;
  try {
    const response = await fetch("/status", { signal: AbortSignal.timeout(LONGEST_MS) });
    if (!response.ok) throw new Error(response.status);
    const status = await response.json();
    if (turn !== look.turn) return;
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
    if (turn !== look.turn) return;
    wasAway = true;
    show("The page's own server cannot be reached. Start it again where it has ended; this page looks again by itself.");
  }
  // A page that nobody looks at asks nothing.
  if (!document.hidden) look.next = setTimeout(look, pace);
};
document.addEventListener("visibilitychange", () => document.hidden || look());
modiste.look = look;
look();
