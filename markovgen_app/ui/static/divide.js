// Two pictures in one frame, parted by a line. A range input holds the line's place, so keyboard and screen readers have
// it; pointers drag anywhere in the frame. The button "Before", or the key B, held, shows the left picture alone.
function divided(frame) {
  frame.innerHTML = `
    <div class="mg-side"><img alt=""><canvas width="${SIDE}" height="${SIDE}" aria-hidden="true"></canvas></div>
    <div class="mg-side mg-left"><img alt=""><canvas width="${SIDE}" height="${SIDE}" aria-hidden="true"></canvas></div>
    <canvas class="mg-marks" width="${SIDE}" height="${SIDE}" aria-hidden="true" hidden></canvas>
    <i class="mg-line" aria-hidden="true"></i>
    <span class="mg-badge mg-badge-left" aria-hidden="true"></span><span class="mg-badge mg-badge-right" aria-hidden="true"></span>
    <input type="range" min="0" max="100" value="50">
    <button type="button" class="mg-hold" aria-label="Before: hold to see the left picture alone" aria-pressed="false">Before</button>`;
  const range = frame.querySelector("input"), button = frame.querySelector("button"), marks = frame.querySelector(".mg-marks");
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

  function hold(now) {
    frame.toggleAttribute("data-held", now);
    button.setAttribute("aria-pressed", now);
  }
  button.addEventListener("pointerdown", (event) => {
    event.stopPropagation(); // the line stays where it is
    if (event.button) return;
    button.setPointerCapture(event.pointerId);
    hold(true);
  });
  button.addEventListener("contextmenu", (event) => event.preventDefault()); // a long press on a phone
  for (const end of ["pointerup", "pointercancel", "blur"]) button.addEventListener(end, () => hold(false));

  const plain = (event) => !event.ctrlKey && !event.metaKey;
  const pressing = (event) => [" ", "Enter"].includes(event.key) && event.target === button;
  const lettered = (event) => event.key.toLowerCase() === "b" && frame.checkVisibility();
  const typing = (event) => event.target.closest?.("textarea, select, [contenteditable], input:not([type=range], [type=radio], [type=checkbox])");
  document.addEventListener("keydown", (event) => {
    if (plain(event) && (pressing(event) || (lettered(event) && !typing(event)))) hold(true);
  });
  document.addEventListener("keyup", (event) => (pressing(event) || event.key.toLowerCase() === "b") && hold(false));

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

