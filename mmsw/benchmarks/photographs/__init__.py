"""Networks on photographs that nobody of this project made: CamVid and BCCD."""
