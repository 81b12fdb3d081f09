/* Says so when the modules have not begun: they need what this browser has not. No module, and for every browser. */

window.addEventListener("load", function () {
  var loading = document.getElementById("loading");
  var words = document.getElementById("not-begun");
  // The page takes the place of both.
  if (!words) return;
  loading.hidden = true;
  words.hidden = false;
});
