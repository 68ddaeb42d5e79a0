"""Pages and sheets to look at: the gallery, the contact sheet, the difference of two versions.

Each is one file that needs no network. Templates are in `generator/templates/`.
Not here: the page of a build in progress (`generator/monitor/`), and reports of trainings (`trainer/report/`).
"""
