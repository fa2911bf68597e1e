// What follows from seven probabilities: the one place with rules of decision, all of whose numbers come from the
// deployed model's JSON. Mirrors `cli.predict` (refer or no alarm) and `metrics/selective.py` (sets, least confidence).

export const POINTS = ["sensitivity", "youden", "f1"]; // operating points; the first is the default, as in Python

// The rules in `description`, the content of the deployed model's JSON. An Error if one is missing or unusable: without
// its threshold a detector must not say "no alarm".
export function readRules(description) {
  const { classes, melanoma_index: melanoma, thresholds } = description;
  const { conformal, keep } = JSON.parse(description.selective);
  const quantiles = classes.map((name) => conformal.class_conditional[name]);
  const numbers = [...POINTS.map((point) => thresholds[point]), ...quantiles, conformal.coverage, ...Object.values(keep)];
  if (classes[melanoma] !== "mel" || !numbers.every((value) => value >= 0 && value <= 1)) {
    throw new Error("the model's JSON lacks a rule");
  }
  return { classes, melanoma, thresholds, quantiles, coverage: conformal.coverage, keep };
}

// Seven calibrated probabilities → what the page says of one picture.
//   decision: "refer" | "no alarm" | "cannot judge"
//   set: the diagnoses of the conformal set (one quantile per diagnosis)
//   surer: the largest proportion of validation pictures known to be surer than this one, or null: the doubt
export function judge(probabilities, rules, point = POINTS[0]) {
  const p = Array.from(probabilities);
  if (p.length !== rules.classes.length || !p.every((value) => value >= 0 && value <= 1)) {
    return { decision: "cannot judge" };
  }
  const confidence = Math.max(...p);
  const doubts = Object.keys(rules.keep).filter((share) => confidence < rules.keep[share]).map(Number);
  return {
    decision: p[rules.melanoma] >= rules.thresholds[point] ? "refer" : "no alarm",
    melanoma: p[rules.melanoma],
    threshold: rules.thresholds[point],
    set: rules.classes.filter((_, k) => 1 - p[k] <= rules.quantiles[k]),
    surer: doubts.length ? Math.max(...doubts) : null,
  };
}

// Several pictures of one lesion: one alarm is an alarm, and "no alarm" needs every picture to be judged.
export function judgeLesion(decisions) {
  if (decisions.includes("refer")) return "refer";
  return decisions.length > 0 && decisions.every((decision) => decision === "no alarm") ? "no alarm" : "cannot judge";
}
