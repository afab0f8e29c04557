"""Many devices and many machines: `Ray Serve <https://docs.ray.io/en/latest/serve/>`_ spreads what takes long.

The page, its faces and photos stay in one process. What computes stands behind two deployments, each with as many
replicas as there is work for (:mod:`app.cluster.replicas`): codes become pictures in one, long jobs are carried out in
the other. What is sent to them is plain data, codes or a recipe, so any replica can do any of it, and another one where
the first is gone. Everything here needs the extra ``serve``; nothing else imports it.
"""
