"""One fit from recipe to records: the command behind ``tinymim fit``, its folder, progress, guard and pre-flight."""
