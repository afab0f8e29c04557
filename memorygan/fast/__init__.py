"""The same formulas in less time: operators, folded weights, recorded graphs; and a plain reference to hold them to."""
