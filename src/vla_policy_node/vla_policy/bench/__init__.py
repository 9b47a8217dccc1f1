"""How fast a policy is, measured side by side in one run; `python -m vla_policy.bench`. Nothing imports this package.

Sections are functions of `Settings`, named in `vla_policy.bench.sections`; other packages add theirs by the entry point
group `vla_policy.bench`.
"""
