// What this window keeps over a reload; nothing where the browser keeps nothing.
window.markovgenSession = {
  get(name) { try { return JSON.parse(sessionStorage.getItem(`markovgen-${name}`)); } catch { return null; } },
  set(name, value) { try { sessionStorage.setItem(`markovgen-${name}`, JSON.stringify(value)); } catch { /* it is full */ } },
};

// Prompt and seed are carried from tab to tab: entering one takes over what the tab last used had. See ui/tabs.py.
window.markovgenTabs = (() => {
  const session = window.markovgenSession;
  const query = new URLSearchParams(location.search);
  const followed = performance.getEntriesByType("navigation")[0]?.type === "navigate" && (query.has("p") || query.has("tab"));
  let left = followed ? null : session.get("words"); // {tab, prompt, seed} when the window was left, until something is typed
  let last = null; // the tab whose prompt and seed are the newest
  let ready = false; // whether what was left is back, or typed over

  const shown = () => [...document.querySelectorAll(".mg-tab")].find((each) => each.checkVisibility());
  function keep() {
    const tab = shown();
    if (!tab || !ready) return;
    const [prompt, seed] = ["prompt", "seed"].map((name) => tab.querySelector(`.mg-field-${name} :is(input, textarea)`)?.value ?? "");
    session.set("words", { tab: tab.id.slice("tab-".length), prompt, seed });
  }
  document.addEventListener("input", (event) => {
    if (!event.target.closest(".mg-field-prompt, .mg-field-seed")) return;
    left = null;
    ready = true;
    keep();
  });
  addEventListener("pagehide", keep);

  return {
    shown, // the tab that is open, if it is one with a prompt
    // `values` are the prompt and the seed of every tab in `names`; returns those that the entered tab is to have.
    entered(name, names, values) {
      const of = (each) => values.slice(2 * names.indexOf(each), 2 * names.indexOf(each) + 2);
      const carried = of(last ?? name).map((value, at) => value ?? of(name)[at] ?? "");
      last = name;
      if (ready) session.set("words", { tab: name, prompt: carried[0], seed: carried[1] });
      return carried;
    },
    // The tab is about to be filled with something else.
    sent(name) {
      last = name;
      if (shown()?.id !== `tab-${name}`) document.querySelector("#tabs").scrollIntoView();
    },
    // Prompt and seed as they were left, over those of the page's own link; nothing where a link was followed here.
    left: () => (left ? [left.prompt, left.seed] : []),
    // The tab as it was left, then prompt and seed for every tab in `names`.
    restored(names) {
      ready = true;
      if (!left || !names.includes(left.tab)) return [];
      last = left.tab;
      return [{ __type__: "update", selected: left.tab }, ...names.flatMap(() => [left.prompt, left.seed])];
    },
  };
})();
