// Pictures in the browser: smooth enlarging, confidence, PNG files. Components put this in front of their own script.
const SIDE = 512; // pixels of an enlarged picture

function lanczosTaps(from, to) {
  const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
  return Array.from({ length: to }, (_, at) => {
    const centre = ((at + 0.5) * from) / to - 0.5;
    const taps = [];
    let total = 0;
    for (let i = Math.floor(centre) - 2; i <= Math.floor(centre) + 3; i++) {
      const x = centre - i;
      const weight = Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0;
      taps.push([Math.min(from - 1, Math.max(0, i)), weight]);
      total += weight;
    }
    return taps.map(([i, weight]) => [i, weight / total]);
  });
}

const taps = {};
function lanczos(image, target) {
  const w = image.naturalWidth, h = image.naturalHeight;
  const scratch = new OffscreenCanvas(w, h);
  const context = scratch.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const source = context.getImageData(0, 0, w, h).data;
  const across = (taps[w] = taps[w] || lanczosTaps(w, SIDE)), down = (taps[h] = taps[h] || lanczosTaps(h, SIDE));
  const rows = new Float32Array(h * SIDE * 3);
  for (let y = 0; y < h; y++)
    for (let x = 0; x < SIDE; x++)
      for (const [i, weight] of across[x])
        for (let c = 0; c < 3; c++) rows[(y * SIDE + x) * 3 + c] += weight * source[(y * w + i) * 4 + c];
  const result = new ImageData(SIDE, SIDE);
  for (let y = 0; y < SIDE; y++)
    for (let x = 0; x < SIDE; x++) {
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (const [i, weight] of down[y]) sum += weight * rows[(i * SIDE + x) * 3 + c];
        result.data[(y * SIDE + x) * 4 + c] = sum;
      }
      result.data[(y * SIDE + x) * 4 + 3] = 255;
    }
  target.getContext("2d").putImageData(result, 0, 0);
}

// Shows sources in an <img> and, smoothly enlarged, in the canvas over it. Of sources that come quickly, the last one wins.
// `passing` leaves the enlarging to the browser: for pictures that the next one replaces in a moment. Large ones need none.
function painter(image, canvas) {
  let painting = 0;
  return async (src, passing = false) => {
    const ticket = ++painting;
    const loaded = new Image();
    loaded.src = src;
    await loaded.decode();
    if (ticket !== painting) return;
    image.src = src;
    image.hidden = false;
    canvas.hidden = passing || Math.max(loaded.naturalWidth, loaded.naturalHeight) > SIDE;
    if (!canvas.hidden) lanczos(loaded, canvas);
    return loaded;
  };
}

// Frames the tokens whose flag is set, on a canvas over the picture; `fade` pales all others.
function paintFrames(canvas, flags, grid, fade) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, SIDE, SIDE);
  const height = SIDE / grid[0], width = SIDE / grid[1];
  flags.forEach((set, at) => {
    const x = (at % grid[1]) * width, y = Math.floor(at / grid[1]) * height;
    if (set) {
      for (const [colour, line, inset] of [["rgb(0 0 0 / 0.75)", 5, 2.5], ["#fff", 2, 2.5]]) {
        context.strokeStyle = colour;
        context.lineWidth = line;
        context.strokeRect(x + inset, y + inset, width - 2 * inset, height - 2 * inset);
      }
    } else if (fade) {
      context.fillStyle = "rgb(132 126 122 / 0.82)";
      context.fillRect(x, y, width, height);
    }
  });
}

// Fades to grey what the model is unsure of: visible on any picture. Dashes are tokens not decided yet.
function paintHeat(canvas, tokens, grid) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, SIDE, SIDE);
  if (!tokens) return;
  const bytes = Uint8Array.from(atob(tokens), (c) => c.charCodeAt(0));
  const height = SIDE / grid[0], width = SIDE / grid[1];
  bytes.forEach((byte, at) => {
    const x = (at % grid[1]) * width, y = Math.floor(at / grid[1]) * height;
    context.fillStyle = `rgb(132 126 122 / ${0.94 * (1 - Math.sqrt((byte & 127) / 127))})`;
    context.fillRect(x, y, width, height);
    if (byte & 128) {
      context.strokeStyle = "rgb(255 255 255 / 0.85)";
      context.setLineDash([4, 3]);
      context.strokeRect(x + 1.5, y + 1.5, width - 3, height - 3);
    }
  });
}

function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// A PNG's text chunks hold its settings: carry them, checksums and all, into the enlarged file.
function withTextOf(original, enlarged) {
  const texts = [];
  const view = new DataView(original.buffer);
  for (let at = 8; at < original.length; ) {
    const end = at + 12 + view.getUint32(at);
    const type = String.fromCharCode(...original.subarray(at + 4, at + 8));
    if (type === "tEXt" || type === "iTXt" || type === "zTXt") texts.push(original.subarray(at, end));
    at = end;
  }
  const header = 8 + 25; // signature and IHDR
  return new Blob([enlarged.subarray(0, header), ...texts, enlarged.subarray(header)], { type: "image/png" });
}

const bytesOf = async (source) => new Uint8Array(await source.arrayBuffer());

// The PNG file of a picture, enlarged to SIDE pixels, with the settings of the original.
async function enlarged(source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  const canvas = new OffscreenCanvas(SIDE, SIDE);
  lanczos(image, canvas);
  return withTextOf(await bytesOf(await fetch(source)), await bytesOf(await canvas.convertToBlob()));
}

