// Two pictures in one frame, parted by a line. A range input holds the line's place, so keyboard and screen readers have
// it; pointers drag anywhere in the frame. B, held, shows the left picture alone.
function divided(frame) {
  frame.innerHTML = `
    <div class="mg-side"><img alt=""><canvas width="${SIDE}" height="${SIDE}" aria-hidden="true"></canvas></div>
    <div class="mg-side mg-left"><img alt=""><canvas width="${SIDE}" height="${SIDE}" aria-hidden="true"></canvas></div>
    <canvas class="mg-marks" width="${SIDE}" height="${SIDE}" aria-hidden="true" hidden></canvas>
    <i class="mg-line" aria-hidden="true"></i>
    <span class="mg-badge mg-badge-left" aria-hidden="true"></span><span class="mg-badge mg-badge-right" aria-hidden="true"></span>
    <input type="range" min="0" max="100" value="50">`;
  const range = frame.querySelector("input"), marks = frame.querySelector(".mg-marks");
  const sides = [...frame.querySelectorAll(".mg-side")].reverse().map((side) => {
    const image = side.querySelector("img");
    return { image, paint: painter(image, side.querySelector("canvas")) };
  });
  const badges = [...frame.querySelectorAll(".mg-badge")];
  let names = ["", ""];

  function place() {
    frame.style.setProperty("--at", `${range.value}%`);
    range.setAttribute("aria-valuetext", `${names[0]} on the left ${range.value} %, ${names[1]} on the rest`);
  }
  range.addEventListener("input", place);

  let dragging = false;
  function drag(event) {
    const box = frame.getBoundingClientRect();
    range.value = Math.round((100 * (event.clientX - box.left)) / box.width);
    place();
  }
  frame.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    dragging = true;
    frame.setPointerCapture(event.pointerId);
    range.focus({ preventScroll: true });
    event.preventDefault();
    drag(event);
  });
  frame.addEventListener("pointermove", (event) => dragging && drag(event));
  for (const end of ["pointerup", "pointercancel"]) frame.addEventListener(end, () => (dragging = false));

  const held = (event) => event.key.toLowerCase() === "b" && !event.ctrlKey && !event.metaKey && frame.checkVisibility();
  const typing = (event) => event.target.closest?.("textarea, select, [contenteditable], input:not([type=range])");
  document.addEventListener("keydown", (event) => held(event) && !typing(event) && frame.setAttribute("data-held", ""));
  document.addEventListener("keyup", (event) => event.key.toLowerCase() === "b" && frame.removeAttribute("data-held"));

  place();
  return {
    // Each side is {name, src, alt}.
    show(...pictures) {
      names = pictures.map((picture) => picture.name);
      pictures.forEach((picture, at) => {
        sides[at].paint(picture.src).catch(() => {});
        sides[at].image.alt = picture.alt;
        badges[at].textContent = picture.name;
      });
      range.setAttribute("aria-label", `Line between ${names[0]} and ${names[1]}`);
      place();
    },
    // Frames the tokens whose flag is set; none for null.
    mark(flags, grid) {
      marks.hidden = !flags;
      if (flags) paintFrames(marks, flags, grid, false);
    },
  };
}

