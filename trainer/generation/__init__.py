"""From values, prompts and an adapter to videos, their records and a labelled grid."""
