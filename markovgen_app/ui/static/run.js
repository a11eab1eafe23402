// A run as its visitor sees it: waiting in line, running, stopped. Components put this in front of their own script, which
// has `render` (draws everything anew) and `stopped` (says where the run stands). `element` is the component's.
const tab = element.closest(".mg-tab");
const store = ((window.markovgenStages ||= {})[tab.id] ||= {});
const WAITING = "Waiting for a free place";
const announce = (message) => (element.querySelector(".mg-live").textContent = message);

function phase() {
  const now = store.waiting ? "waiting" : store.running ? "running" : "idle";
  tab.toggleAttribute("data-running", now !== "idle");
  return now;
}

// Whether a value from the server is one to show; if so, the run goes on.
function accepted(value) {
  if (!value || !value.run || value.run === store.stoppedRun || store.halted) return false;
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
    render();
  }
}).observe(block, { childList: true, characterData: true, subtree: true });

store.start = () => {
  store.halted = store.running = false;
  store.waiting = true;
  store.place = WAITING;
  announce("Waiting to start");
  render();
  window.markovgenGlide(element.querySelector(".mg-frame"));
};
store.finish = () => {
  store.waiting = store.running = false;
  render();
};
store.stop = () => {
  if (!store.waiting && !store.running) return;
  store.halted = true;
  if (store.running) {
    store.stoppedRun = store.run;
    stopped();
  }
  announce("Stopped");
  store.finish();
};

// ---- what every stage's buttons do ---------------------------------------------------------------------------------

function say(button, message) {
  const label = button.textContent;
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

// A link fills in the tab that it leads to, once.
function openLink() {
  const query = Object.fromEntries(new URLSearchParams(location.search));
  const leads = `tab-${query.tab || "generate"}` === tab.id;
  if (!store.opened && location.search && leads) trigger("opened", { query });
  store.opened = true;
}
