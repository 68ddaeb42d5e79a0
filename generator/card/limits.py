"""What is known of every Stopdown dataset and not found in its numbers: uses and limits, for card and Croissant."""

from __future__ import annotations

USES = (
    "teaching a text-to-video diffusion model a physical camera control, and measuring how well it obeys; "
    "the labels are held against the pixels by the same probes that read generated video."
)

LIMITS = (
    "Synthetic primitives on plain ground: no person, place, text or real object; nothing can be learnt here of what the world "
    "looks like, and a model trained on it alone takes on the look.",
    "The probes' errors above are on these clips; on other footage a probe can be worse or refuse to read.",
    "Clips whose effect is too small to be held to the bar are labelled by construction only; `*_judged` says which.",
    "A control beyond the labelled range is extrapolation.",
    "Captions are English, from a small grammar, and do not name the effect unless the recipe asks for it.",
    "One camera, one shading model per fidelity, no lens but a thin one: no distortion, vignetting, rolling shutter or grain.",
    "H.264 at 4:2:0 loses colour detail; labels hold for the encoded frames, which is what the probes read.",
)

BIASES = (
    "Content is drawn evenly from a small list of shapes, colours and motions (see the recipe), not from any population.",
    "Control values are stratified over the trained range, evenly in the logarithm of the physical value; real footage is not.",
)
