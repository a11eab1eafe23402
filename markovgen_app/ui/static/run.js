// A run as its visitor sees it: waiting in line, running, stopped. Components put this in front of their own script, which
// has `render` (draws everything anew) and `stopped` (says where the run stands). `element` is the component's.
const tab = element.closest(".mg-tab");
const store = ((window.markovgenStages ||= {})[tab.id] ||= {});
const WAITING = "Waiting for a free place";
const announce = (message) => (element.querySelector(".mg-live").textContent = message);

function phase() {
  const now = store.waiting ? "waiting" : store.running ? "running" : "idle";
  const [away, instead] = now === "idle" ? [".mg-stop", ".mg-run"] : [".mg-run", ".mg-stop"];
  const held = tab.querySelector(away) === document.activeElement;
  tab.toggleAttribute("data-running", now !== "idle");
  if (held) tab.querySelector(instead).focus({ preventScroll: true });
  return now;
}

// Tells the place in line, in the header and aloud, if it lasts: most are let in at once. Empty for none.
function inLine(place) {
  const tell = () => {
    document.querySelector("#header .mg-queue").textContent = place;
    if (place) announce(place);
  };
  clearTimeout(store.telling);
  if (place) store.telling = setTimeout(tell, 500);
  else tell();
}

// Whether a value from the server is one to show; if so, the run goes on.
function accepted(value) {
  if (!value || !value.run || value.run === store.stoppedRun || store.halted) return false;
  if (store.waiting) inLine("");
  store.waiting = false;
  store.running = !value.final;
  return true;
}

// Gradio writes the place in the queue into its status line, which the stage covers: say it in words.
const block = element.closest(".block.mg-stage-block");
new MutationObserver(() => {
  if (!store.waiting) return;
  const tracker = block.querySelector("[data-testid=status-tracker]");
  const found = /queue:\s*(\d+)\s*\/\s*(\d+)/.exec(tracker ? tracker.textContent : "");
  const next = found && found[1] === "1";
  const place = next ? "Waiting: you are next in line" : found ? `Waiting: number ${found[1]} of ${found[2]} in line` : WAITING;
  if (place !== store.place) {
    store.place = place;
    inLine(found ? place : "");
    render();
  }
}).observe(block, { childList: true, characterData: true, subtree: true });

store.start = () => {
  store.halted = store.running = false;
  store.waiting = true;
  store.startedAt = performance.now();
  store.place = WAITING;
  announce("Waiting to start");
  render();
  window.markovgenGlide(element.querySelector(".mg-frame:not([hidden])"));
};
store.finish = () => {
  if (store.waiting) inLine("");
  if (store.running) stopped();
  store.waiting = store.running = false;
  render();
};
store.stop = () => {
  if (phase() === "idle") return;
  store.halted = true;
  store.stoppedAt = performance.now();
  if (store.running) store.stoppedRun = store.run;
  announce("Stopped");
  store.finish();
};
// Whether a run was under way that has now failed without an answer. Gradio says so of runs that were stopped, too.
store.fail = () => {
  if (phase() === "idle") return false;
  store.finish();
  return true;
};
store.filled = () => {
  window.markovgenGlide(tab.querySelector(".mg-ask"));
  announce("Settings are filled in");
};

// ---- what every stage's buttons do ---------------------------------------------------------------------------------

function say(button, message) {
  const label = (button.dataset.label ??= button.textContent);
  button.textContent = message;
  announce(message);
  setTimeout(() => (button.textContent = label), 1400);
}

async function copy(button, content) {
  try {
    await navigator.clipboard.writeText(content);
    say(button, "Copied");
  } catch {
    window.prompt("Copy this:", content);
  }
}

const copyLink = (button, link) => copy(button, new URL(link, location.href).href);

async function download(src, name) {
  save(await (await fetch(src)).blob(), `${name}.png`);
}

// Sends a picture's settings, and the picture itself where that tab changes pictures, to a tab and goes there.
function send(to, settings, src = null) {
  if (settings) window.markovgenTabs.sent(to);
  trigger("send", { to, settings, src });
}

// The page's query string, if it leads to this tab.
function linkHere() {
  const query = Object.fromEntries(new URLSearchParams(location.search));
  return location.search && `tab-${query.tab || "generate"}` === tab.id ? query : null;
}

// A link fills in the tab that it leads to, once.
function openLink() {
  const query = linkHere();
  if (!store.opened && query) trigger("opened", { query });
  store.opened = true;
}
