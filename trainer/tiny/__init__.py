"""The bundled backbone: a small real text-to-video model, trained by this project from nothing on clips of its own engine."""
