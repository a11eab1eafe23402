// The comparison. Python sends its whole state in `props.value` (ui/comparison.py); this draws it and keeps the session's.
// value = {run, final, prompt, grid: [h, w], cards: {method: {title, explained, label, fraction, src, tokens, stage, …}}, film: [{step,
//   stage, name, exit, plain, refined, changed}], and at the end seed, exit_step, field, equal, differs, link, settings, sheet, file}
// A stage is {number, grid} of what is finer than the base, whose grid is the value's; null, or nothing, for the base.
const $ = (selector) => element.querySelector(selector);
const stage = $(".mg-comparison"), cards = $(".mg-cards"), strip = $(".mg-cut-strip"), shelves = $(".mg-shelves");
const slider = divided($(".mg-divide"));
store.past ||= []; // the session's comparisons, newest first
store.examples ||= [];
store.value ||= null; // the comparison on the stage
store.pair ||= null; // keys of what the slider shows, see `sources`
store.overlay ||= null; // "changed", "heat" or null
store.pixels ??= false;
const linked = linkHere()?.p; // whether the page's link is to a comparison

const escaped = (text) => Object.assign(document.createElement("i"), { textContent: text }).innerHTML;

function text(selector, content) {
  const node = $(selector);
  node.textContent = content || "";
  node.hidden = !content;
}

// Rows and columns of a card, a column of the film, or the field.
const gridOf = (part, value) => part.stage?.grid ?? value.grid;
const cutKey = ({ step, stage }) => (stage ? `${stage.number}.${step}` : `${step}`);
const cutName = ({ step, name }) => name ?? `Step ${step}`;

// ---- what the slider can show: pictures by key ---------------------------------------------------------------------

function sources(value) {
  const found = {};
  for (const [name, card] of Object.entries(value.cards))
    if (card.src) found[name] = { name: card.title, src: card.src, codes: card.codes, grid: gridOf(card, value) };
  if (value.field) {
    found.unrefined = { name: `${cutName(value.field)}, the field left out`, src: value.field.plain };
    found.refined = { name: `${cutName(value.field)}, the field's choice`, src: value.field.refined };
  }
  for (const cut of value.film) {
    const key = cutKey(cut), name = cutName(cut);
    found[`plain ${key}`] = { name: cut.refined ? `${name}, without the field` : name, src: cut.plain, film: true };
    if (cut.refined) found[`refined ${key}`] = { name: `${name}, with the field`, src: cut.refined, film: true };
  }
  for (const source of Object.values(found)) source.alt = `${value.prompt} (${source.name})`;
  return found;
}

function firstPair(value) {
  const made = Object.keys(value.cards).filter((name) => value.cards[name].src);
  const liked = ["early-exit", "markovgen"];
  return liked.every((name) => made.includes(name)) ? liked : [made[0], made[made.length - 1]];
}

// Which tokens differ between two sources, {flags, count, grid}; of the film it is only known how many, else nothing is.
function difference(value, left, right) {
  const counted = (flags, grid) => ({ flags, count: flags.filter(Boolean).length, grid });
  if (left.codes && right.codes) return counted(left.codes.map((code, at) => code !== right.codes[at]), left.grid);
  const keys = [...store.pair].sort().join();
  if (keys === "refined,unrefined") return counted(value.field.changed, gridOf(value.field, value));
  const cut = value.film.find((each) => keys === `plain ${cutKey(each)},refined ${cutKey(each)}`);
  return cut && { count: cut.changed, grid: gridOf(cut, value) };
}

function renderCloser(value) {
  const found = sources(value);
  const shown = Object.keys(value.cards).filter((name) => found[name]).length > 1 && phase() === "idle";
  $(".mg-closer").hidden = !shown;
  if (!shown) return;
  if (!store.pair || !store.pair.every((key) => found[key])) store.pair = firstPair(value);
  const [left, right] = store.pair.map((key) => found[key]);
  const options = (film) =>
    Object.entries(found)
      .filter(([, source]) => !!source.film === film)
      .map(([key, source]) => `<option value="${key}">${escaped(source.name)}</option>`)
      .join("");
  for (const select of element.querySelectorAll(".mg-pair select")) {
    const wanted = options(false) + (value.film.length ? `<optgroup label="The full run, cut">${options(true)}</optgroup>` : "");
    if (select.dataset.options !== wanted) {
      select.innerHTML = wanted;
      select.dataset.options = wanted;
    }
    select.value = store.pair[Number(select.dataset.side)];
  }
  slider.show(left, right);
  const apart = difference(value, left, right);
  slider.mark(store.overlay === "changed" && apart?.count ? apart.flags : null, apart?.grid);
  $(".mg-difference").textContent = !apart ? "" : apart.count ? `${apart.count} of ${apart.grid[0] * apart.grid[1]} tokens differ.` : "The same to the last token.";
}

// ---- cards ---------------------------------------------------------------------------------------------------------

function cardOf(name, card) {
  const node = document.createElement("article");
  node.className = "mg-card";
  node.dataset.method = name;
  node.innerHTML = `
    <header><h2>${escaped(card.title)}</h2><p class="mg-state"></p></header><p class="mg-what">${escaped(card.explained)}</p>
    <div class="mg-frame"><img class="mg-native" alt="" width="128" height="128" hidden><canvas class="mg-crisp" width="${SIDE}" height="${SIDE}" aria-hidden="true"></canvas><canvas class="mg-heat" width="${SIDE}" height="${SIDE}" aria-hidden="true" hidden></canvas></div>
    <div class="mg-progress" role="progressbar" aria-label="${escaped(card.title)}" aria-valuemin="0" aria-valuemax="100"><i></i></div>
    <p class="mg-speed" hidden></p>
    <dl hidden><div><dt>Steps</dt><dd></dd></div><div><dt>Transformer calls</dt><dd></dd></div><div><dt>Model time</dt><dd></dd></div></dl>
    <div class="mg-clock" aria-hidden="true" hidden><i></i></div>
    <div class="mg-actions" hidden><button type="button" data-act="download">Download</button><button type="button" data-act="generate">Open <span>in Generate</span></button><button type="button" data-act="inpaint">Inpaint</button><button type="button" data-act="edit">Edit <span>by words</span></button><button type="button" data-act="copy">Copy settings</button><button type="button" data-act="link">Copy link</button></div>`;
  node.paint = painter(node.querySelector(".mg-native"), node.querySelector(".mg-crisp"));
  return node;
}

function renderCard(node, card, value, state) {
  const part = (selector) => node.querySelector(selector);
  part(".mg-frame").dataset.view = store.pixels ? "pixels" : "smooth";
  const passing = state === "running" && !card.done, seen = `${passing} ${card.src}`;
  if (card.src && node.seen !== seen) node.paint(card.src, passing).catch(() => {});
  node.seen = seen;
  part("img").alt = `${value.prompt} (${card.title})`;
  part(".mg-progress").setAttribute("aria-valuenow", Math.round(100 * card.fraction));
  part(".mg-progress i").style.width = `${100 * card.fraction}%`;
  part(".mg-state").textContent = card.steps ? "" : card.label;
  for (const selector of ["dl", ".mg-clock", ".mg-speed"]) part(selector).hidden = !card.steps;
  part(".mg-actions").hidden = !(card.done || (card.stopped && card.src));
  part("[data-act=link]").hidden = !card.link;
  for (const act of ["generate", "copy"]) part(`[data-act=${act}]`).hidden = !card.settings;
  if (card.steps) {
    const said = [card.steps, card.calls, card.seconds];
    node.querySelectorAll("dd").forEach((each, at) => (each.textContent = said[at]));
    part(".mg-clock i").style.width = `${100 * card.share}%`;
    part(".mg-speed").innerHTML = card.reference ? "<b>1×</b>the reference" : card.speedup ? `<b>${card.speedup}</b>as fast as Full` : "";
    part(".mg-speed").hidden = !card.speedup;
  }
  const heat = part(".mg-heat");
  const changed = store.overlay === "changed" && node.dataset.method === "markovgen" && value.field;
  heat.hidden = !(changed || (store.overlay === "heat" && card.tokens));
  if (changed) paintFrames(heat, value.field.changed, gridOf(value.field, value), true);
  else if (!heat.hidden) paintHeat(heat, card.tokens, gridOf(card, value));
}

function legend(value) {
  if (store.overlay === "heat") {
    const sure = Object.values(value.cards).filter((card) => card.sure).map((card) => `${escaped(card.title)} ${card.sure}`);
    return `<span><i class="mg-unsure"></i>faded: unsure when the token was taken</span><span><i class="mg-open"></i>dashed: undecided</span>${sure.length ? `<span>mean confidence: ${sure.join(" · ")}</span>` : ""}`;
  }
  if (store.overlay !== "changed") return "";
  if (value.field) return `<span><i class="mg-open"></i>framed: ${escaped(value.field.said)}</span><span>Below, the tokens in which the two pictures differ are framed.</span>`;
  return "<span>Only MarkovGen's random field changes tokens. Below, the tokens in which the two pictures differ are framed.</span>";
}

// ---- everything ----------------------------------------------------------------------------------------------------

function render() {
  const value = store.value, state = phase();
  stage.dataset.state = state;
  for (const act of ["changed", "heat"]) $(`[data-act=${act}]`).setAttribute("aria-pressed", store.overlay === act);
  $("[data-act=pixels]").setAttribute("aria-pressed", store.pixels);
  $(".mg-divide").dataset.view = store.pixels ? "pixels" : "smooth";
  text(".mg-label", state === "waiting" ? store.place : value && value.badge ? "Made earlier" : "");
  $(".mg-empty").hidden = !!value;
  if (linked) $(".mg-empty").textContent = "Press Compare to make the pictures of this link.";
  $(".mg-views").hidden = !value;
  renderShelves();
  if (!value) return;
  text(".mg-prompt", value.prompt);
  $(".mg-facts").hidden = value.seed === undefined;
  $(".mg-facts span").textContent = value.seed === undefined ? "" : `seed ${value.seed} for all`;

  const names = Object.keys(value.cards);
  if (cards.dataset.names !== names.join()) {
    cards.replaceChildren(...names.map((name) => cardOf(name, value.cards[name])));
    cards.dataset.names = names.join();
    cards.dataset.count = names.length;
  }
  names.forEach((name, at) => renderCard(cards.children[at], value.cards[name], value, state));
  $(".mg-legend").innerHTML = legend(value);
  $(".mg-legend").hidden = !store.overlay;
  $(".mg-take").hidden = !value.final;
  $("[data-act=sheet]").hidden = !value.sheet;
  renderCloser(value);
  renderField(value.field);
  renderFilm(value);
  $(".mg-fair").hidden = !value.final;
  if (value.final)
    [value.equal, value.differs].forEach((lines, at) => {
      element.querySelectorAll(".mg-fair ul")[at].innerHTML = lines.map((line) => `<li>${escaped(line)}</li>`).join("");
    });
}

function renderField(made) {
  $(".mg-field").hidden = !made;
  if (!made) return;
  $(".mg-field-said").textContent = `${[...(made.below ?? []), made.said].join(". ")}, by the same noise.`;
  element.querySelectorAll(".mg-field dd").forEach((each, at) => (each.textContent = [made.before, made.after][at]));
  $(".mg-verdict").textContent = made.verdict;
}

function renderFilm(value) {
  const film = value.film, refined = film.some((cut) => cut.refined);
  $(".mg-cuts").hidden = !film.length;
  if (!film.length) return;
  $(".mg-cuts .mg-how").textContent = refined
    ? "What the full run would have shown, had it stopped at a step: the transformer's own guesses above, the random field's below, by the same noise. Press a step to look at the two closely."
    : "What the full run would have shown, had it stopped at a step. Press a step to look at it beside the finished picture.";
  strip.dataset.rows = refined ? 2 : 1;
  if (strip.dataset.run !== value.run || strip.childElementCount !== film.length + 1) {
    strip.dataset.run = value.run;
    strip.innerHTML = `<div class="mg-cut-names" aria-hidden="true"><i></i><span>without the field</span><span>with the field</span></div>${film
      .map((cut) => `<button type="button" data-cut="${cutKey(cut)}"><b></b>${(refined ? [cut.plain, cut.refined] : [cut.plain]).map((src) => (src ? `<img alt="" src="${src}">` : "<i></i>")).join("")}<span>${cut.refined ? `${cut.changed} differ` : ""}</span></button>`)
      .join("")}`;
  }
  for (const cut of film) {
    const button = strip.querySelector(`[data-cut="${cutKey(cut)}"]`), name = cut.stage ? `fine ${cut.step}` : cut.step;
    button.querySelector("b").textContent = cut.exit ?? cut.step === value.exit_step ? `${name}, the exit` : name;
    button.setAttribute("aria-label", `${cutName(cut)}, ${button.lastChild.textContent}`);
    button.setAttribute("aria-pressed", !!store.pair && store.pair[0] === `plain ${cutKey(cut)}`);
  }
}

function renderShelves() {
  const shelf = (title, list) =>
    list.length
      ? `<section class="mg-shelf"><h2>${title}</h2><ul>${list
          .map((value) => `<li><button type="button" data-run="${value.run}"><img alt="" width="128" height="128" src="${Object.values(value.cards).pop().src}"><span>${escaped(value.prompt)}</span></button></li>`)
          .join("")}</ul></section>`
      : "";
  const listed = [store.past, store.examples].map((list) => list.map(({ run }) => run)).join(" ");
  if (shelves.dataset.listed !== listed) shelves.innerHTML = shelf("Your comparisons", store.past) + shelf("Examples", store.examples);
  shelves.dataset.listed = listed;
  for (const button of shelves.querySelectorAll("button")) button.setAttribute("aria-pressed", button.dataset.run === store.value?.run);
}

function show(value) {
  store.value = value;
  store.pair = null;
  render();
}

function receive() {
  const value = props.value;
  if (value && value.examples) {
    store.examples = value.examples.map((example) => ({ ...example, badge: true }));
    store.value ||= (!linked && store.examples[0]) || null;
    return render();
  }
  if (!accepted(value)) return;
  if (store.run !== value.run) store.pair = null;
  store.run = value.run;
  store.value = value;
  if (value.final) {
    store.past = [value, ...store.past.filter(({ run }) => run !== value.run)].slice(0, 8);
    announce("The comparison is ready");
    history.replaceState(null, "", value.link);
  }
  render();
}

function stopped() {
  const stop = (card) => ({ ...card, label: `Stopped at ${card.label}`, file: "markovgen-stopped", stopped: true });
  const cards = Object.entries(store.value.cards).map(([name, card]) => [name, card.done ? card : stop(card)]);
  store.value = { ...store.value, cards: Object.fromEntries(cards) };
}

// ---- what people do ------------------------------------------------------------------------------------------------

const overlay = (name) => () => { store.overlay = store.overlay === name ? null : name; render(); };
const pair = (left, right) => { store.pair = [left, right]; render(); window.markovgenGlide($(".mg-closer")); };
// What a tab that changes pictures takes from this one; of a picture that was stopped, its words.
const wordsOf = (card) => card.settings ?? JSON.stringify({ prompt: store.value.prompt });
const acts = {
  changed: overlay("changed"),
  heat: overlay("heat"),
  pixels: () => { store.pixels = !store.pixels; render(); },
  swap: () => pair(...store.pair.reverse()),
  field: () => { store.overlay = "changed"; pair("unrefined", "refined"); },
  sheet: () => download(store.value.sheet, `${store.value.file}_comparison`),
  copy: (button, card) => copy(button, (card ?? store.value).settings),
  link: (button, card) => copyLink(button, (card ?? store.value).link),
  reuse: () => { trigger("reuse", { seed: store.value.seed }); store.filled(); },
  download: (button, card) => download(card.src, card.file),
  generate: (button, card) => send("generate", card.settings),
  inpaint: (button, card) => send("inpaint", wordsOf(card), card.src),
  edit: (button, card) => send("edit", wordsOf(card), card.src),
};

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const card = button.closest(".mg-card");
  if (button.dataset.act) return acts[button.dataset.act](button, card && store.value.cards[card.dataset.method]);
  if (button.dataset.cut) {
    const cut = store.value.film.find((each) => cutKey(each) === button.dataset.cut);
    return pair(`plain ${cutKey(cut)}`, cut.refined ? `refined ${cutKey(cut)}` : "full");
  }
  const known = [...store.past, ...store.examples].find(({ run }) => run === button.dataset.run);
  if (!known) return;
  show(known);
  window.markovgenGlide($(".mg-head"));
});
element.addEventListener("change", (event) => {
  if (!event.target.matches(".mg-pair select")) return;
  store.pair[Number(event.target.dataset.side)] = event.target.value;
  render();
});

watch("value", receive);
if (!store.opened) trigger("examples", {});
openLink();
receive();
render();
