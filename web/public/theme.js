// Runs before the page is drawn, so that a chosen theme does not flash. Inline scripts are not allowed.
try {
  const theme = localStorage.getItem("spincycle-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // A browser can forbid storage. Then the theme of the system counts.
}
