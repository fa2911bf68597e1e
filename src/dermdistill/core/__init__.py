"""The words every stage speaks: classes, files, prepared images and splits, model ids."""
