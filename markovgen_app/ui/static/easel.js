// Below the editor: which tokens a run would change, masks to save; and pictures that are dropped or pasted.
// value = null, {src, says}, or {save: {src, name, ticket}}
const figure = element.querySelector(".mg-touched");
const column = element.closest(".mg-source");

function render() {
  const value = props.value;
  figure.hidden = !value?.src;
  if (!value?.src) return;
  figure.querySelector("img").src = value.src;
  figure.querySelector("img").alt = value.says;
  figure.querySelector("figcaption").textContent = value.says;
}

async function receive() {
  const file = props.value?.save;
  if (!file) return render();
  save(await (await fetch(file.src)).blob(), `${file.name}.png`);
}

// A file goes to the file control, whose checks are the server's.
function open(files) {
  const input = column.querySelector("input[type=file]"); // the first one opens a picture
  if (!files?.length || !input) return false;
  input.files = files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
  return true;
}
const carriesFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
column.addEventListener("dragover", (event) => {
  if (!carriesFile(event)) return;
  event.preventDefault();
  column.setAttribute("data-drop", "");
});
for (const leave of ["dragleave", "drop"]) column.addEventListener(leave, () => column.removeAttribute("data-drop"));
column.addEventListener("drop", (event) => {
  if (carriesFile(event) && open(event.dataTransfer.files)) event.preventDefault();
});
document.addEventListener("paste", (event) => {
  if (element.isConnected && column.checkVisibility() && open(event.clipboardData?.files)) event.preventDefault();
});

watch("value", receive);
render();
