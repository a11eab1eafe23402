// Page-wide behaviour: day and night, keyboard, words that go into the prompt. Everything is delegated from the document,
// so it does not matter when Gradio draws what.
(() => {
  // ---- day and night -------------------------------------------------------------------------------------------------
  const stored = () => { try { return localStorage.getItem("markovgen-theme"); } catch { return null; } };
  const asked = new URLSearchParams(location.search).get("__theme");
  const night = () => {
    const choice = stored() || (["dark", "light"].includes(asked) ? asked : null);
    return choice ? choice === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const paint = (dark) => {
    document.body.classList.toggle("dark", dark);
    document.documentElement.style.colorScheme = dark ? "dark" : "light";
  };
  const whenBody = (then) => (document.body ? then() : addEventListener("DOMContentLoaded", then));
  whenBody(() => {
    paint(night());
    // Gradio sets the class once more while it starts; hold on to the visitor's choice until the page is drawn.
    const keeper = new MutationObserver(() => document.body.classList.contains("dark") !== night() && paint(night()));
    keeper.observe(document.body, { attributes: true, attributeFilter: ["class"] });
    document.addEventListener("click", (event) => {
      if (!event.target.closest("#theme-toggle")) return;
      keeper.disconnect();
      const dark = !document.body.classList.contains("dark");
      paint(dark);
      try { localStorage.setItem("markovgen-theme", dark ? "dark" : "light"); } catch { /* a private window */ }
    });
  });

  // ---- run and stop --------------------------------------------------------------------------------------------------
  const tab = () => window.markovgenTabs.shown();
  const running = () => tab()?.hasAttribute("data-running");
  const press = (selector) => tab()?.querySelector(selector)?.click();
  const stageOf = (event) => window.markovgenStages?.[event.target.closest(".mg-tab")?.id];
  document.addEventListener("click", (event) => {
    if (event.target.closest(".mg-run")) {
      tab()?.querySelectorAll("[data-says]").forEach(settle);
      stageOf(event)?.start();
    }
    if (event.target.closest(".mg-stop")) stageOf(event)?.stop();
  });

  // Run and Stop take each other's place: the second click of a double click, and a key held down, are not for the other.
  document.addEventListener("click", (event) => {
    const stage = stageOf(event), stop = event.target.closest(".mg-stop"), run = event.target.closest(".mg-run");
    const turned = stop ? stage?.startedAt : run ? stage?.stoppedAt : null;
    if (event.isTrusted && turned && event.timeStamp - turned < 500) event.stopImmediatePropagation();
  }, true);
  document.addEventListener("keydown", (event) => {
    if (event.repeat && event.key === "Enter" && event.target.closest(".mg-runbar")) event.preventDefault();
  });

  // Brings into sight, gliding unless less motion is asked for.
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  window.markovgenGlide = (node) => node?.scrollIntoView({ block: "nearest", behavior: calm.matches ? "auto" : "smooth" });

  // Files that are dropped on an area go to `take`, which says whether it took them; `marked` shows where they would go.
  const carriesFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  window.markovgenDrop = (area, marked, take) => {
    area.addEventListener("dragover", (event) => {
      if (!carriesFile(event)) return;
      event.preventDefault();
      marked.setAttribute("data-drop", "");
    });
    for (const leave of ["dragleave", "drop"]) area.addEventListener(leave, () => marked.removeAttribute("data-drop"));
    area.addEventListener("drop", (event) => {
      if (carriesFile(event) && take(event.dataTransfer.files)) event.preventDefault();
    });
  };

  // A mistake is said at its field, too, until that is changed or all is run again; the field may be in a closed fold.
  function mistaken(field, message) {
    const fold = field.closest(".mg-advanced");
    if (fold) document.querySelector(`.mg-fold[aria-controls="${fold.id}"]`)?.setAttribute("aria-expanded", "true");
    const input = field.querySelector("input, textarea");
    field.dataset.says = message;
    input?.setAttribute("aria-invalid", "true");
    input?.focus({ preventScroll: true });
  }
  function settle(field) {
    delete field.dataset.says;
    field.querySelector("[aria-invalid]")?.removeAttribute("aria-invalid");
  }
  document.addEventListener("input", (event) => {
    const field = event.target.closest("[data-says]");
    if (field) settle(field);
  });

  // A notice, or the field that it is about, may be out of sight.
  new MutationObserver((changes) => {
    for (const { addedNodes } of changes)
      for (const node of addedNodes) {
        if (!node.matches?.(".mg-notices .mg-notice")) continue;
        const field = node.dataset.field && node.closest(".mg-tab")?.querySelector(`.mg-field-${node.dataset.field}`);
        if (field) mistaken(field, node.textContent);
        window.markovgenGlide(field && !field.closest(".mg-ask") ? field : node);
      }
  }).observe(document.documentElement, { childList: true, subtree: true });

  // The browser would open a file that is dropped where no place for files is, and the page be gone.
  for (const kind of ["dragover", "drop"])
    document.addEventListener(kind, (event) => {
      if (event.defaultPrevented || ![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = "none";
    });

  // ---- keyboard ------------------------------------------------------------------------------------------------------
  document.addEventListener("keydown", (event) => {
    const help = document.querySelector("#shortcuts");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      if (!running()) setTimeout(() => press(".mg-run"), 60); // let Gradio see the last keystroke first
    } else if (event.key === "Escape" && running() && !help?.open && !event.defaultPrevented && !event.target.closest?.("[role=listbox], [aria-expanded=true]:not(.mg-fold)")) press(".mg-stop");
    else if (event.key === "?" && !event.target.closest("input, textarea, [contenteditable]")) help?.showModal();
  });
  document.addEventListener("click", (event) => {
    const help = document.querySelector("#shortcuts");
    if (event.target.closest("#shortcuts-open")) help?.showModal();
    else if (event.target === help || event.target.closest("#shortcuts-close")) help?.close();
  });

  // ---- folds ---------------------------------------------------------------------------------------------------------
  document.addEventListener("click", (event) => {
    const fold = event.target.closest(".mg-fold");
    if (fold) fold.setAttribute("aria-expanded", fold.getAttribute("aria-expanded") !== "true"); // page.css does the rest
  });

  // ---- words ---------------------------------------------------------------------------------------------------------
  const LEADS_ON = /(^|[\s,])(a|an|the|and|or|of|to|in|on|at|above|below|with|by|two|three|four)$/i;
  const box = () => tab()?.querySelector(".mg-ask-prompt textarea");
  const set = (text, caret = text.length) => {
    const prompt = box();
    prompt.value = text;
    prompt.dispatchEvent(new Event("input", { bubbles: true }));
    if (matchMedia("(pointer: fine)").matches) {
      prompt.focus();
      prompt.setSelectionRange(caret, caret);
    }
  };

  function insert(chip) {
    const { kind, phrase, word } = chip.dataset;
    const prompt = box(), all = prompt.value;
    const caret = kind === "noun" || kind === "colour" ? (prompt.selectionStart ?? all.length) : all.length;
    const before = all.slice(0, caret).trimEnd(), after = all.slice(caret).trimStart();
    const leadsOn = LEADS_ON.test(before);
    let text = leadsOn ? word : phrase;
    if (kind === "style") text = before ? `, ${word}` : `${word} of`;
    else if (kind === "noun" && before && !leadsOn && !/[.,]$/.test(before)) text = `and ${phrase}`;
    const joined = before && kind !== "style" ? `${before} ${text}` : before + text;
    set(after ? `${joined} ${after}` : joined, joined.length);
  }

  function swap(chip) {
    const { unknown, known } = chip.dataset;
    const escaped = unknown.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    const boundary = new RegExp(`(?<![\\p{L}\\p{N}])${escaped}(?![\\p{L}\\p{N}])`, "iu");
    set(box().value.replace(boundary, () => known));
  }

  document.addEventListener("click", (event) => {
    const chip = event.target.closest(".mg-word-chip");
    if (chip) (chip.dataset.unknown ? swap : insert)(chip);
  });

  // The prompt once its writer has paused: half-typed words are not looked up.
  window.markovgenSettled = async (text) => {
    for (let last = null; box() && box().value !== last; text = last) {
      last = box().value;
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
    return text;
  };

  document.addEventListener("input", (event) => {
    if (!event.target.matches(".mg-search")) return;
    const query = event.target.value.trim().toLowerCase();
    const list = event.target.parentElement.querySelector(".mg-list");
    let found = 0;
    for (const group of list.querySelectorAll("section")) {
      let left = 0;
      for (const chip of group.querySelectorAll(".mg-word-chip")) {
        chip.hidden = !!query && !chip.dataset.search.includes(query);
        left += !chip.hidden;
      }
      group.hidden = !left;
      found += left;
    }
    list.querySelector(".mg-none").hidden = found > 0;
  });
})();
