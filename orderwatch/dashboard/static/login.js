// A link may carry a token behind the hash sign, which a browser never sends: it goes into the form and out of the bar.
// The person presses the button: a link of somebody else's must not log anybody in.
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  history.replaceState(null, "", location.pathname + location.search);
  document.getElementById("token").value = given;
  document.querySelector("#login button").focus();
}
