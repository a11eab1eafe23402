// Below the editor: which tokens a run would change, masks to save; beside it: files that come, undoing, and a warning.
// value = null, {src, says}, {save: {src, name, ticket}}, {painted, fresh, ticket} where the editor has something new to
//   show, or, from here alone, {line, given} while a file comes: given is [w, h] of the file before it was shrunk
const figure = element.querySelector(".mg-touched");
const column = element.closest(".mg-source");

function render() {
  const value = props.value, line = column.querySelector(".mg-opening p");
  if (line) line.textContent = value?.line ?? "";
  figure.hidden = !value?.src;
  if (!value?.src) return;
  figure.querySelector("img").src = value.src;
  figure.querySelector("img").alt = value.says;
  figure.querySelector("figcaption").textContent = value.says;
}

async function receive() {
  const { painted, fresh, save: file } = props.value ?? {};
  if (painted !== undefined) paints(painted);
  if (fresh) trigger("ready", {});
  if (!file) return render();
  save(await (await fetch(file.src)).blob(), `${file.name}.png`);
}

// ---- files -----------------------------------------------------------------------------------------------------------

const MOST = 10 * 2 ** 20; // bytes of a file that the server takes, see ui/build.py
const inputs = () => [...column.querySelectorAll("input[type=file]")]; // the first one opens a picture, the other a mask
let coming = 0, passing = false;

function tell(line, given = null) {
  props.value = { line, given };
  render();
  window.markovgenGlide(column.querySelector(".mg-opening"));
}

// A mask, drawn smaller: as white as the whitest under each pixel, lest thin strokes vanish.
function pool(mask, canvas) {
  const context = canvas.getContext("2d"), { width, height } = canvas, pooled = context.createImageData(width, height);
  const below = (row) => Math.ceil((row * mask.height) / height); // the first row of the mask under a row
  const strip = new OffscreenCanvas(mask.width, Math.ceil(mask.height / height) + 1).getContext("2d", { willReadFrequently: true });
  for (let row = 0; row < height; row++) {
    const top = below(row), rows = below(row + 1) - top;
    strip.clearRect(0, 0, mask.width, rows);
    strip.drawImage(mask, 0, top, mask.width, rows, 0, 0, mask.width, rows);
    const { data } = strip.getImageData(0, 0, mask.width, rows);
    for (let at = 0; at < data.length; at += 4) {
      const to = 4 * (row * width + Math.floor((((at / 4) % mask.width) * width) / mask.width));
      const white = ((0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2]) * data[at + 3]) / 255;
      if (white > pooled.data[to]) pooled.data.fill(white, to, to + 3);
      pooled.data[to + 3] = 255;
    }
  }
  context.putImageData(pooled, 0, 0);
}

// A picture or a mask as large as it is worked on, upright, and what size it had; or the file as it is.
async function shrunk(file, isMask) {
  const picture = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => null);
  const scale = picture && props.longest / Math.max(picture.width, picture.height);
  if (!picture || scale >= 1) return [file, null]; // the server says what is wrong with it, if anything
  const given = [picture.width, picture.height];
  const canvas = new OffscreenCanvas(...given.map((side) => Math.max(1, Math.round(side * scale))));
  if (isMask) pool(picture, canvas);
  else {
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  }
  picture.close();
  const blob = await canvas.convertToBlob(isMask ? {} : { type: "image/webp", quality: 0.95 }); // PNG where there is no WebP
  const name = `${file.name.replace(/\.[^.]*$/, "")}.${blob.type.slice("image/".length)}`;
  return [new File([blob], name, { type: blob.type }), given];
}

// What the file control would refuse in a corner of the page is said here.
function problem(file) {
  if (!file.type.startsWith("image/")) return "is no picture that can be read: choose a PNG, JPEG, WebP, GIF, BMP or TIFF file.";
  return file.size > MOST ? "has more than 10 MB: save it smaller, or as a JPEG file." : null;
}

async function bring(input, chosen) {
  const mine = ++coming, isMask = input !== inputs()[0], line = `Opening the ${isMask ? "mask" : "picture"} …`;
  tell(line);
  const [file, given] = await shrunk(chosen, isMask);
  if (mine !== coming) return;
  if (problem(file)) return tell(`${file.name} ${problem(file)}`);
  tell(line, given);
  const transfer = new DataTransfer();
  transfer.items.add(file);
  input.files = transfer.files;
  passing = true;
  input.dispatchEvent(new Event("change", { bubbles: true }));
  passing = false;
}
column.addEventListener("change", (event) => {
  if (passing || !inputs().includes(event.target) || !event.target.files.length) return;
  event.stopPropagation();
  bring(event.target, event.target.files[0]);
}, true);

function open(files) {
  const [input] = inputs();
  if (!files?.length || !input) return false;
  bring(input, files[0]);
  return true;
}
window.markovgenDrop(column, column, open);

// Office programs put a picture of the text beside the text.
const inText = (event) => event.target.closest?.('textarea, [contenteditable], input:not([type="range"], [type="radio"], [type="checkbox"])');
document.addEventListener("paste", (event) => {
  const pasted = event.clipboardData;
  if (!element.isConnected || !column.checkVisibility() || (inText(event) && pasted?.types.includes("text/plain"))) return;
  if (open(pasted?.files)) event.preventDefault();
});

// ---- undoing ---------------------------------------------------------------------------------------------------------

// Strokes first, one by one, which the editor keeps; then what the buttons did, which the server keeps.
column.addEventListener("click", (event) => {
  const stroke = event.target.closest(".mg-undo") && column.querySelector(".mg-editor .separator + button:enabled");
  if (!stroke) return;
  event.stopPropagation();
  stroke.click();
}, true);
document.addEventListener("keydown", (event) => {
  const pressed = event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey;
  const undo = column.querySelector(".mg-undo");
  if (!pressed || !element.isConnected || !undo?.checkVisibility() || inText(event)) return;
  event.preventDefault();
  undo.click();
});

// ---- leaving ---------------------------------------------------------------------------------------------------------

// What is painted is used once a run has shown something since.
const run = () => window.markovgenStages?.[column.closest(".mg-tab").id]?.run;
let unused = false, since;
function paints(anything) {
  unused = anything;
  since = run();
}
column.addEventListener("pointerdown", (event) => event.target.closest(".mg-editor canvas") && paints(true));
addEventListener("beforeunload", (event) => {
  if (unused && run() === since && element.isConnected) event.preventDefault();
});

watch("value", receive);
receive();
