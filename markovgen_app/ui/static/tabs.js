// Prompt and seed are carried from tab to tab: entering one takes over what the tab last used had. See ui/tabs.py.
window.markovgenTabs = (() => {
  let last = null; // the tab whose prompt and seed are the newest
  return {
    // `values` are the prompt and the seed of every tab in `names`; returns those that the entered tab is to have.
    entered(name, names, values) {
      const of = (each) => values.slice(2 * names.indexOf(each), 2 * names.indexOf(each) + 2);
      const carried = of(last ?? name);
      last = name;
      return carried.map((value, at) => value ?? of(name)[at] ?? "");
    },
    // The tab is about to be filled with something else.
    sent: (name) => (last = name),
  };
})();
