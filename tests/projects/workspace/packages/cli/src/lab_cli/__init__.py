import lab_core
