// The rater's page. Answers are kept in the browser until the server has acknowledged them, and carry a number, so that
// sending one again is harmless. Two pictures are shown only when both are ready, in one and the same frame.
(() => {
  "use strict";
  const $ = (selector) => document.querySelector(selector);
  const { study, exposure, invited } = document.body.dataset;
  const PLACE = `study:${study}`;
  const TIMEOUT = 20000; // ms, of one request
  const LONGEST_PAUSE = 15000; // ms, between two tries

  // ---- what this browser remembers ---------------------------------------------------------------------------------
  // token: who I am · invitation: the one it came from · queue: answers that are not acknowledged yet
  const memory = { token: null, invitation: "", queue: [] };
  try { Object.assign(memory, JSON.parse(localStorage.getItem(PLACE) || "{}")); } catch { /* a private window, or damage */ }
  if (!Array.isArray(memory.queue)) memory.queue = [];
  const remember = () => { try { localStorage.setItem(PLACE, JSON.stringify(memory)); } catch { /* kept in this page only */ } };
  const forget = () => {
    Object.assign(memory, { token: null, invitation: "", queue: [] });
    try { localStorage.removeItem(PLACE); } catch { /* nothing was kept */ }
  };
  const invitation = location.hash.slice(1) || memory.invitation;

  // ---- day and night -----------------------------------------------------------------------------------------------
  const night = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => { try { return localStorage.getItem("study-theme"); } catch { return null; } };
  const paint = (theme) => { document.documentElement.dataset.theme = theme; };
  paint(chosen() || (night.matches ? "dark" : "light"));
  night.addEventListener("change", () => { if (!chosen()) paint(night.matches ? "dark" : "light"); });
  $("#theme").addEventListener("click", () => {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    paint(theme);
    try { localStorage.setItem("study-theme", theme); } catch { /* for this page only */ }
  });

  // ---- the server --------------------------------------------------------------------------------------------------
  const REASONS = ["closed", "input", "order", "stranger"]; // the study's own; a proxy or another server has none of them
  class Refusal extends Error {
    constructor({ error, reason }) { super(error); this.reason = REASONS.includes(reason) ? reason : "later"; }
  }
  const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

  async function request(path, body, keepalive = false) {
    const headers = memory.token ? { Authorization: `Bearer ${memory.token}` } : {};
    if (body) headers["Content-Type"] = "application/json";
    const stop = new AbortController();
    const timer = setTimeout(() => stop.abort(), TIMEOUT);
    try {
      const response = await fetch(`rate/${path}`, {
        method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body),
        cache: "no-store", credentials: "omit", signal: stop.signal, keepalive,
      });
      if (response.ok) return path.startsWith("pictures/") ? await response.blob() : await response.json();
      throw new Refusal((await response.json().catch(() => null)) || {});
    } finally {
      clearTimeout(timer);
    }
  }
  /** Only the study itself refuses for good: a proxy's error, or that of a server without the study, passes. */
  const final = (error) => error instanceof Refusal && error.reason !== "later";

  /** Tries again, more and more slowly, until it succeeds or is refused for good. */
  let reachable = true;
  async function persistently(work, onFailure = () => {}) {
    for (let pause = 500; ; pause = Math.min(pause * 2, LONGEST_PAUSE)) {
      try {
        const told = await work();
        reachable = true;
        return told;
      } catch (error) {
        if (final(error)) throw error;
        reachable = false;
        onFailure();
        await Promise.race([sleep(pause), new Promise((resolve) => addEventListener("online", resolve, { once: true }))]);
      }
    }
  }

  // ---- screens -----------------------------------------------------------------------------------------------------
  let screen = "";
  function show(name) {
    screen = name;
    for (const each of document.querySelectorAll("[data-screen]")) each.hidden = each.dataset.screen !== name;
    $("#leave").hidden = name !== "rate";
    scrollTo(0, 0);
    if (name !== "rate") $(`[data-screen="${name}"] h1`)?.focus({ preventScroll: true });
  }
  function say(line) {
    $("#notice").textContent = line;
    $("#notice").hidden = !line;
  }
  function message(title, line) {
    $("#message-title").textContent = title;
    $("#message-text").textContent = line;
    show("message");
  }

  // ---- where I stand: what the server knows, and what is on its way ---------------------------------------------------
  let trials = [], number = 0, answered = 0, code = "";
  const realTrials = () => trials.filter((trial) => !trial.practice).length;
  const step = (answer) => (answer.action === "vote" ? 1 : -1);

  function stand(session) {
    trials = session.trials;
    code = session.code;
    memory.queue = memory.queue.filter((answer) => answer.number > session.number);
    number = session.number + memory.queue.length;
    answered = session.answered + memory.queue.reduce((sum, answer) => sum + step(answer), 0);
    remember();
  }

  // ---- sending -----------------------------------------------------------------------------------------------------
  let sending = false;
  function said(line, waiting = false) {
    const place = $("#saving");
    if (place.textContent !== line) place.textContent = line;
    place.toggleAttribute("data-waiting", waiting);
    if (screen === "done") $("#done-text").textContent = waiting ? line : doneText();
  }
  const waitingLine = () => {
    const many = memory.queue.length;
    return `${many === 1 ? "1 answer waits" : `${many} answers wait`} for the network. Kept on this device and sent as soon as it is back.`;
  };

  async function send() {
    if (sending) return;
    sending = true;
    try {
      while (memory.queue.length) {
        const answer = memory.queue[0];
        await persistently(() => request("api/answers", answer, true), () => said(waitingLine(), true));
        if (memory.queue[0] === answer) memory.queue.shift();
        remember();
      }
      said(answered ? "Saved" : "");
    } catch (error) {
      await refused(error);
    } finally {
      sending = false;
    }
  }

  function enqueue(answer) {
    number += 1;
    memory.queue.push({ number, ...answer });
    remember();
    answered += step(answer);
    send();
  }

  /** The server refuses for good: say why, and take over what it knows. */
  async function refused(error) {
    memory.queue = [];
    remember();
    if (error.reason === "stranger") {
      forget();
      say(error.message);
      show("welcome");
    } else if (error.reason === "closed") message("This study is closed", error.message);
    else {
      say(error.message);
      try { stand(await persistently(() => request("api/session"))); await proceed(); } catch (again) { await refused(again); }
    }
  }
  addEventListener("beforeunload", (event) => { if (memory.queue.length) event.preventDefault(); });

  // ---- pictures ----------------------------------------------------------------------------------------------------
  const prepared = new Map(); // id of a trial → promise of its two pictures, decoded

  const waitForPictures = () => {
    $("#waiting").textContent = reachable ? "Loading the pictures …" : "No network: the pictures come as soon as it is back.";
  };

  async function picture(trial, side) {
    const blob = await persistently(() => request(`pictures/${trial.id}/${side}`), waitForPictures);
    const image = new Image();
    image.alt = trial.prompt;
    image.draggable = false;
    image.src = URL.createObjectURL(blob);
    await image.decode();
    return image;
  }
  function prepare(trial) {
    if (!prepared.has(trial.id)) {
      const both = Promise.all(["left", "right"].map((side) => picture(trial, side)));
      both.catch(() => prepared.delete(trial.id));
      prepared.set(trial.id, both);
    }
    return prepared.get(trial.id);
  }
  /** Keep the pairs around the present one, let go of the others. */
  function tidy(present) {
    const near = new Set(trials.slice(Math.max(0, present - 1), present + 2).map((trial) => trial.id));
    for (const [id, both] of prepared)
      if (!near.has(id)) {
        prepared.delete(id);
        both.then((images) => images.forEach((image) => URL.revokeObjectURL(image.src)), () => {});
      }
  }

  // ---- rating ------------------------------------------------------------------------------------------------------
  const buttons = [...document.querySelectorAll("[data-choice]")];
  let present = null, shownAt = 0, hiddenFor = 0, hiddenSince = 0, ready = false, turn = 0;

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) hiddenSince = performance.now();
    else if (hiddenSince) { hiddenFor += performance.now() - hiddenSince; hiddenSince = 0; }
  });
  function allow(yes) {
    ready = yes;
    for (const button of buttons) button.setAttribute("aria-disabled", String(!yes));
  }

  async function ask() {
    const mine = ++turn;
    const trial = trials[answered];
    present = null;
    allow(false);
    $("#lesson").hidden = true;
    $("#answers").hidden = false;
    $("#undo").setAttribute("aria-disabled", String(answered === 0));
    const practice = trials.length - realTrials();
    const real = answered >= practice;
    $("#count").textContent = real ? `${answered - practice + 1} / ${realTrials()}` : `Practice ${answered + 1} / ${practice}`;
    const share = real ? Math.round((100 * (answered - practice)) / Math.max(1, realTrials())) : 0;
    $(".progress").setAttribute("aria-valuenow", String(share));
    $(".progress i").style.width = `${share}%`;
    $("#prompt").textContent = trial.prompt;
    $("#prompt").classList.toggle("long", trial.prompt.length > 140);
    $("#pair").setAttribute("data-loading", "");
    for (const side of ["left", "right"]) $(`#${side} .slot`).replaceChildren();
    waitForPictures();
    let images;
    try {
      images = await prepare(trial);
    } catch (error) {
      if (mine !== turn) return;
      if (error.reason === "stranger" || error.reason === "closed") await refused(error);
      else message("These pictures cannot be shown", final(error) ? error.message : "Reload the page to try once more. Your answers so far are saved.");
      return;
    }
    if (mine !== turn) return;
    ["left", "right"].forEach((side, place) => $(`#${side} .slot`).replaceChildren(images[place])); // one frame for both
    $("#pair").removeAttribute("data-loading");
    present = trial;
    const focused = document.activeElement;
    if (!focused || focused === document.body || !focused.checkVisibility()) $("#prompt").focus({ preventScroll: true });
    requestAnimationFrame(() => {
      if (mine !== turn) return;
      shownAt = performance.now();
      hiddenFor = 0;
      hiddenSince = document.hidden ? shownAt : 0;
      const whenSeen = () => { // for as long as it takes, the page in view
        if (mine !== turn || !present) return;
        const seen = performance.now() - shownAt - hiddenFor - (hiddenSince ? performance.now() - hiddenSince : 0);
        const left = 1000 * Number(exposure) - seen;
        if (left <= 0) allow(true);
        else setTimeout(whenSeen, Math.max(left, 20));
      };
      whenSeen();
    });
    tidy(answered);
    if (trials[answered + 1]) prepare(trials[answered + 1]);
  }

  function choose(choice) {
    if (!ready || !present || screen !== "rate") return;
    const trial = present;
    const taken = Math.round(performance.now() - shownAt - hiddenFor) / 1000;
    const seconds = Math.min(86_400, Math.max(0, taken)); // what the server takes
    const pressed = buttons.find((button) => button.dataset.choice === choice);
    pressed.setAttribute("data-pressed", "");
    setTimeout(() => pressed.removeAttribute("data-pressed"), 160);
    present = null;
    allow(false);
    enqueue({ action: "vote", trial: trial.id, choice, seconds });
    if (trial.practice) teach(trial, choice);
    else proceed();
  }

  function teach(trial, choice) {
    const tall = getComputedStyle($(".answer .tall")).display !== "none";
    const names = tall ? { left: "top", right: "bottom" } : { left: "left", right: "right" };
    const last = !trials[answered]?.practice;
    const lines = choice === trial.practice
      ? ["Well seen: the other one is scrambled."]
      : [`Most people would choose the ${names[trial.practice]} one here, because the other is scrambled.`];
    if (last) lines.push("That was the practice. From here on there are no right answers: yours is what counts.");
    $("#lesson-text").textContent = lines.join(" ");
    $("#next").textContent = last ? "Start rating" : "Next";
    $("#answers").hidden = true;
    $("#lesson").hidden = false;
    $("#next").focus();
    turn += 1; // the clock of this pair stands
  }

  function undo() {
    if (!answered || $("#undo").getAttribute("aria-disabled") === "true") return;
    enqueue({ action: "undo", trial: trials[answered - 1].id });
    proceed();
  }

  /** The next pair, or the end. */
  async function proceed() {
    if (answered < trials.length) {
      if (screen !== "rate") show("rate");
      await ask();
    } else finish();
  }

  const doneText = () => (memory.queue.length ? waitingLine() : "All of your answers are saved.");
  function finish() {
    turn += 1;
    present = null;
    $("#done-title").textContent = "Thank you";
    $("#code").textContent = code;
    $("#more").hidden = false;
    $("#resume").hidden = true;
    $("#undo-done").hidden = false;
    show("done");
    $("#done-text").textContent = doneText();
  }

  // ---- beginning -----------------------------------------------------------------------------------------------------
  async function start(button) {
    button.disabled = true;
    say("");
    try {
      const session = await request("api/start", { consent: true, ...(memory.token ? {} : { invitation }) });
      memory.token = session.token;
      memory.invitation = invitation;
      history.replaceState(null, "", location.pathname + location.search);
      stand(session);
      return true;
    } catch (error) {
      if (error.reason === "closed") message("Thank you", error.message);
      else say(final(error) ? error.message : "The study cannot be reached: check your network, then try again.");
      return false;
    } finally {
      button.disabled = false;
    }
  }

  $("#agree").addEventListener("click", async (event) => { if (await start(event.currentTarget)) instruct(); });
  function instruct() {
    const examples = trials.length - realTrials();
    $("#begin").textContent = answered ? "Go on" : examples ? `Try ${words(examples)} example${examples > 1 ? "s" : ""}` : "Begin";
    show("instructions");
    if (trials[answered]) prepare(trials[answered]);
  }
  const words = (count) => ["no", "one", "two", "three", "four", "five"][count] || String(count);
  $("#begin").addEventListener("click", proceed);
  $("#next").addEventListener("click", proceed);
  $("#undo").addEventListener("click", undo);
  $("#undo-done").addEventListener("click", undo);
  $("#more").addEventListener("click", async (event) => {
    if (memory.queue.length) return void ($("#done-text").textContent = waitingLine()); // a new round follows the last answer
    if (await start(event.currentTarget) && answered < trials.length) proceed();
  });
  for (const button of buttons) button.addEventListener("click", () => choose(button.dataset.choice));

  $("#leave").addEventListener("click", () => {
    turn += 1;
    present = null;
    finish();
    $("#done-title").textContent = "Stop here?";
    $("#done-text").textContent = memory.queue.length ? waitingLine() : "What you have answered so far is saved. You may stop now, come back to this page later, or go on.";
    $("#more").hidden = $("#undo-done").hidden = true;
    $("#resume").hidden = false;
  });
  $("#resume").addEventListener("click", proceed);

  $("#copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code);
      $("#copy").textContent = "Copied";
      setTimeout(() => { $("#copy").textContent = "Copy"; }, 1400);
    } catch { getSelection().selectAllChildren($("#code")); }
  });

  // ---- keys --------------------------------------------------------------------------------------------------------
  const KEYS = { ArrowLeft: "left", ArrowDown: "tie", ArrowRight: "right", b: "bad", s: "skip" };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || screen !== "rate" || $("dialog[open]")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key === "u") undo();
    else if (KEYS[key] && $("#lesson").hidden) { event.preventDefault(); choose(KEYS[key]); }
  });

  // ---- one picture, large: the other takes its very place --------------------------------------------------------------
  const large = $("#large");
  let largeSide = "left";
  function enlarge(side) {
    const image = $(`#${side} img`);
    if (!image) return;
    largeSide = side;
    const copy = new Image();
    copy.src = image.src;
    copy.alt = image.alt;
    $(".large-stage").replaceChildren(copy);
    const place = [...document.querySelectorAll(`[data-choice="${side}"] span`)].find((each) => getComputedStyle(each).display !== "none");
    $("#large-label").textContent = place?.textContent || side;
    if (!large.open) large.showModal();
  }
  const swap = () => enlarge(largeSide === "left" ? "right" : "left");
  for (const side of ["left", "right"]) $(`#${side}`).addEventListener("click", () => enlarge(side));
  $(".large-stage").addEventListener("click", swap);
  $("#swap").addEventListener("click", swap);
  large.addEventListener("keydown", (event) => {
    if ([" ", "ArrowLeft", "ArrowRight"].includes(event.key) && event.target !== $("#large [data-close]")) {
      event.preventDefault();
      if (event.key === " ") swap();
      else enlarge(event.key === "ArrowLeft" ? "left" : "right");
    }
  });
  for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());

  // ---- withdrawing ---------------------------------------------------------------------------------------------------
  for (const button of document.querySelectorAll("[data-open]"))
    button.addEventListener("click", () => {
      $("#withdrawal-code").value = code;
      $("#withdrawal-problem").hidden = true;
      $(`#${button.dataset.open}`).showModal();
    });
  const withdraw = async () => {
    const typed = $("#withdrawal-code").value.trim();
    const problem = (line) => { $("#withdrawal-problem").textContent = line; $("#withdrawal-problem").hidden = false; };
    if (!typed) return problem("Type the code that you were shown.");
    try {
      const { deleted } = await request("api/withdraw", { code: typed });
      if (typed === code) forget();
      code = "";
      say("");
      $("#withdrawal").close();
      message("Deleted", deleted === 1 ? "Your one answer is deleted." : `Your ${deleted} answers are deleted. Nothing of them is left.`);
    } catch (error) {
      problem(final(error) ? error.message : "The study cannot be reached, nothing was deleted: check your network, then try again.");
    }
  };
  $("#withdraw").addEventListener("click", withdraw);
  $("#withdrawal form").addEventListener("submit", (event) => { event.preventDefault(); withdraw(); });

  // ---- where to begin --------------------------------------------------------------------------------------------------
  (async () => {
    if (memory.token && invitation !== memory.invitation) forget(); // another invitation was opened on this device
    if (!memory.token) {
      if (invited === "only" && !invitation) message("By invitation", "This study is by invitation: open the link that you were sent.");
      else show("welcome");
      return;
    }
    say("One moment …");
    try {
      stand(await persistently(() => request("api/session"), () => say("The study cannot be reached: trying again.")));
      say("");
      send();
      if (answered < trials.length) instruct();
      else finish();
    } catch (error) {
      say("");
      await refused(error);
    }
  })();
})();
