// The stage. Python sends the whole state of a run in `props.value`; this draws it and keeps the session's pictures.
// value = {run, label, fraction, prompt, before: url, captions: [text], count, frames: [{first, label, title, grid: [h, w], place: [left,
//   top, width, height], decided, sure, pictures: [url], tokens: [base64, one byte a token: confidence 0..127, plus 128 while
//   undecided]}], pictures: [{src, task, alt, badge, facts, file, seed, link, settings}]}; a frame shows the pictures from `first` on.
const $ = (selector) => element.querySelector(selector);
const stage = $(".mg-stage"), frame = $(".mg-frame"), native = $(".mg-native"), heat = $(".mg-heat");
const film = $(".mg-film"), shelves = $(".mg-shelves"), actions = $(".mg-actions");

const here = tab.id.slice("tab-".length); // the tab's id
const paint = painter(native, $(".mg-crisp"));
const beside = divided($(".mg-divide"));
store.shelf ||= window.markovgenSession.get(`shelf-${here}`) ?? []; // the session's pictures, newest first
store.current ||= null; // the picture on the stage: {id, run, index, src, alt, frames, ...}
store.heat ??= store.pixels ??= false;
store.before ??= true; // whether changed pictures are shown beside what they were
store.step = null; // the step of it on the stage, null for the last one
const linked = here === "generate" && linkHere()?.p; // whether the page's link is to a picture

// ---- what is shown -------------------------------------------------------------------------------------------------

function show(picture, step = null) {
  store.current = picture;
  store.step = step;
  render();
}

const look = () => window.markovgenGlide($(".mg-frame:not([hidden])")); // brings the picture into sight

function text(selector, content) {
  const node = $(selector);
  node.textContent = content || "";
  node.hidden = !content;
}

function render() {
  const picture = store.current;
  const state = phase();
  stage.dataset.state = state;
  frame.dataset.view = store.pixels ? "pixels" : "smooth";
  $("[data-act=heat]").setAttribute("aria-pressed", store.heat);
  $("[data-act=pixels]").setAttribute("aria-pressed", store.pixels);
  $(".mg-empty").hidden = !!picture;
  $(".mg-views").hidden = !picture;
  $(".mg-empty").textContent = linked ? "Press Run to make the picture of this link." : props.empty || "Describe a picture, then press Run.";
  renderShelves();
  text(".mg-label", state === "waiting" ? store.place : picture ? picture.label : "");
  if (!picture) return;

  const frames = picture.frames || [];
  const at = store.step === null ? frames.length - 1 : store.step;
  const step = frames[at];
  const src = picture.final && store.step === null ? picture.src : step ? step.src : picture.src;
  paint(src).then((image) => fit(image, src === picture.src && picture)).catch(() => {});
  native.alt = picture.alt;
  renderBefore(picture, step);
  const shown = store.step === null ? picture.label : step.title;
  text(".mg-label", state === "waiting" ? store.place : shown);
  text(".mg-badge", picture.badge);
  text(".mg-prompt", picture.alt);
  $(".mg-facts").hidden = !picture.facts;
  $(".mg-facts span").textContent = picture.facts || "";

  const overlay = store.heat && step;
  heat.hidden = !overlay;
  if (overlay) ["left", "top", "width", "height"].forEach((side, at) => (heat.style[side] = `${100 * step.place[at]}%`));
  $(".mg-legend").hidden = !store.heat;
  if (overlay) paintHeat(heat, step.tokens, step.grid);
  if (store.heat)
    $(".mg-legend").innerHTML = step
      ? `<span><i class="mg-unsure"></i>faded: unsure</span><span><i class="mg-open"></i>dashed: undecided</span><span>${step.decided} of ${step.grid[0] * step.grid[1]} tokens decided, mean confidence ${step.sure}</span>`
      : "<span>Run this picture to see how sure the model is of each part.</span>";

  actions.hidden = !(picture.final || picture.src);
  for (const act of ["copy", "restore"]) $(`[data-act=${act}]`).hidden = !picture.settings;
  for (const act of ["compare", "link"]) $(`[data-act=${act}]`).hidden = !picture.link;
  for (const act of ["inpaint", "edit"]) $(`[data-act=${act}]`).hidden = act === here || !picture.src;
  $("[data-act=input]").hidden = !["inpaint", "edit"].includes(here) || !picture.src;
  renderFilm(picture, frames, at);
}

// The frame takes the picture's proportions; its button says how much larger the enlarged file of a finished one is.
function fit(image, finished) {
  if (!image) return;
  const large = $("[data-act=large]"), times = Math.round((10 * SIDE) / image.naturalWidth) / 10;
  if (finished) Object.assign(large, { textContent: `Download ${times}×`, hidden: !finished.link || times <= 1 });
  for (const each of element.querySelectorAll(".mg-frame")) each.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
}

// A finished picture that was changed is shown beside what it was, unless a step or the confidence is looked at.
function renderBefore(picture) {
  const changed = picture.final && picture.before && store.step === null && !store.heat;
  $("[data-act=before]").hidden = !changed;
  $("[data-act=before]").setAttribute("aria-pressed", store.before);
  const shown = changed && store.before;
  frame.hidden = shown;
  $(".mg-divide").hidden = !shown;
  $(".mg-divide").dataset.view = frame.dataset.view;
  if (shown)
    beside.show({ name: "Before", src: picture.before, alt: "The picture before" }, { name: picture.badge || "After", src: picture.src, alt: picture.alt });
}

function renderFilm(picture, frames, at) {
  film.hidden = frames.length === 0;
  if (film.dataset.picture !== picture.id || film.childElementCount > frames.length) {
    film.replaceChildren();
    film.dataset.picture = picture.id;
  }
  const following = film.scrollLeft + film.clientWidth >= film.scrollWidth - 80;
  frames.forEach((step, index) => {
    let button = film.children[index];
    if (!button) {
      button = document.createElement("button");
      button.type = "button";
      button.innerHTML = '<img alt="" width="54" height="54"><span></span>';
      film.append(button);
    }
    if (button.dataset.step !== step.title) {
      button.dataset.step = step.title;
      button.querySelector("img").src = step.src;
      button.querySelector("span").textContent = step.label;
      button.setAttribute("aria-label", step.title);
    }
    button.setAttribute("aria-pressed", index === at);
  });
  if (store.running && following) film.scrollLeft = film.scrollWidth;
}

function shelfOf(kind, title, pictures) {
  let shelf = shelves.querySelector(`.mg-${kind}`);
  if (!pictures.length) return shelf && shelf.remove();
  if (!shelf) {
    shelf = document.createElement("section");
    shelf.className = `mg-shelf mg-${kind}`;
    shelf.innerHTML = `<h2>${title}</h2><ul></ul>`;
    if (kind === "strip") shelves.prepend(shelf);
    else if (kind === "mine") shelves.insertBefore(shelf, shelves.querySelector(".mg-examples"));
    else shelves.append(shelf);
  }
  const list = shelf.querySelector("ul");
  const wanted = pictures.map((picture) => picture.id).join();
  if (list.dataset.ids !== wanted) {
    list.dataset.ids = wanted;
    list.replaceChildren(
      ...pictures.map((picture) => {
        const item = document.createElement("li");
        item.innerHTML = '<button type="button"><img width="128" height="128"></button>';
        const button = item.firstChild;
        button.dataset.id = picture.id;
        if (kind !== "mine") {
          button.append(Object.assign(document.createElement("span"), { textContent: kind === "strip" ? picture.caption : picture.alt }));
          button.querySelector("img").alt = "";
        } else button.querySelector("img").alt = picture.alt;
        return item;
      }),
    );
  }
  for (const [index, picture] of pictures.entries()) {
    const button = list.children[index].firstChild, image = button.querySelector("img");
    const last = picture.frames && picture.frames[picture.frames.length - 1];
    const src = picture.final ? picture.src : last ? last.src : picture.src;
    if (src && image.src !== src) image.src = src;
    button.setAttribute("aria-pressed", !!store.current && store.current.id === picture.id);
  }
}

function renderShelves() {
  const strip = store.shelf.filter((picture) => picture.caption && picture.run === store.current?.run);
  shelfOf("strip", "At three strengths", strip);
  shelfOf("mine", "Your pictures", store.shelf);
  shelfOf("examples", "Examples", examples);
}

const examples = (props.examples || []).map((example, index) => ({
  ...example, id: `example-${index}`, final: true, frames: [], badge: "Example", label: "Made earlier", steps: 0,
}));

// ---- a run ---------------------------------------------------------------------------------------------------------

function receive() {
  const value = props.value;
  if (!accepted(value)) return;
  const begun = Math.max(value.pictures.length, ...value.frames.map((step) => step.first + step.pictures.length));
  const mine = Array.from({ length: begun }, (_, index) => {
    const id = `${value.run}-${index}`;
    const known = store.shelf.find((picture) => picture.id === id);
    const picture = known || { id, run: value.run, index };
    Object.assign(picture, {
      alt: value.prompt, label: value.pictures[index] ? "Ready" : value.label, final: index < value.pictures.length, before: value.before,
      caption: value.captions?.[index], facts: "", seed: value.seeds[index], ...value.pictures[index],
      frames: value.frames.filter(({ first, pictures }) => first <= index && index < first + pictures.length).map((step) => {
        const at = index - step.first;
        return { label: step.label, title: step.title, grid: step.grid, place: step.place, decided: step.decided[at], sure: step.sure[at], src: step.pictures[at], tokens: step.tokens[at] };
      }),
    });
    return picture;
  });
  store.shelf = [...mine, ...store.shelf.filter((picture) => picture.run !== value.run)].slice(0, 24);
  $(".mg-progress").setAttribute("aria-valuenow", Math.round(100 * value.fraction));
  $(".mg-progress i").style.width = `${100 * value.fraction}%`;
  const newest = mine[mine.length - 1], fresh = store.run !== value.run;
  const next = value.captions && store.newest !== newest?.id; // one after the other
  store.run = value.run;
  store.newest = newest?.id;
  if (fresh || next) show(fresh ? mine[0] : newest);
  else render();
  if (value.final) {
    announce(mine.length > 1 ? `${mine.length} pictures are ready` : "The picture is ready");
    if (mine[0].link) history.replaceState(null, "", mine[0].link);
    keepShelf();
  }
}

function stopped() {
  for (const picture of store.shelf.filter((picture) => picture.run === store.run && !picture.final)) {
    const last = picture.frames[picture.frames.length - 1];
    const facts = `seed ${picture.seed} · stopped`;
    Object.assign(picture, { label: `Stopped at ${picture.label}`, src: last && last.src, file: "markovgen-stopped", facts });
  }
  keepShelf();
}

// Keeps the newest pictures over a reload, without their steps, as far as there is room in the window's store.
function keepShelf() {
  const kept = [];
  let room = 1_500_000; // characters; a store of 5 million is usual, and three tabs share it
  for (const picture of store.shelf.filter(({ src }) => src)) {
    const { before, ...light } = { ...picture, frames: [] }; // what it was made from is large, and can be had again
    const size = JSON.stringify(light).length;
    if (size > room) continue;
    room -= size;
    kept.push(light);
  }
  window.markovgenSession.set(`shelf-${here}`, kept);
}

// ---- what people do ------------------------------------------------------------------------------------------------

// What a tab that changes pictures takes from this one; of a picture that was stopped, its words and seed.
const wordsOf = (picture) => picture.settings ?? JSON.stringify({ prompt: picture.alt, seed: picture.seed });
const acts = {
  heat: () => { store.heat = !store.heat; render(); },
  pixels: () => { store.pixels = !store.pixels; render(); },
  download: (picture) => download(picture.src, picture.file),
  large: async (picture) => save(await enlarged(picture.src), `${picture.file}-${SIDE}px.png`),
  copy: (picture, button) => copy(button, picture.settings),
  link: (picture, button) => copyLink(button, picture.link),
  before: () => { store.before = !store.before; render(); },
  input: (picture) => { send(here, null, picture.src); window.markovgenGlide(tab.querySelector(".mg-source")); },
  inpaint: (picture) => send("inpaint", wordsOf(picture), picture.src),
  edit: (picture) => send("edit", wordsOf(picture), picture.src),
  compare: (picture) => send("compare", picture.settings),
  restore: (picture) => { send(here, picture.settings); store.filled(); },
  reuse: (picture) => { trigger("reuse", { seed: picture.seed }); store.filled(); },
};

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.act) return acts[button.dataset.act](store.current, button);
  if (film.contains(button)) {
    const index = [...film.children].indexOf(button);
    const last = index === store.current.frames.length - 1;
    return show(store.current, last ? null : index);
  }
  const picture = [...store.shelf, ...examples].find((known) => known.id === button.dataset.id);
  if (!picture) return;
  show(picture);
  if (picture.badge) acts.restore(picture);
  look();
});

film.addEventListener("keydown", (event) => {
  const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const next = move && [...film.children].indexOf(document.activeElement) + move;
  if (!move || !film.children[next]) return;
  event.preventDefault();
  film.children[next].focus();
  film.children[next].click();
});

// A file that is dropped on Generate's stage goes to the file control before its button, whose checks are the server's.
if (here === "generate") {
  window.markovgenDrop(stage, frame, (files) => {
    const input = document.querySelector("#drop-settings")?.previousElementSibling;
    if (!input || !files.length) return false;
    input.files = files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    return true;
  });
}

watch("value", receive);
openLink();
store.current ||= store.shelf.find(({ link }) => link === location.search) ?? (linked ? null : store.shelf[0] ?? examples[0] ?? null);
render();
