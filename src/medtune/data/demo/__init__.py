"""Text written for the demo: question-answer rows in MedQuAD's shape, and prose to pre-train its model on."""
