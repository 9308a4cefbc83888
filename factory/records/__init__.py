"""What the stages hand to each other, as frozen dataclasses and their files."""
