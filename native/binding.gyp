{
  "targets": [
    {
      "target_name": "cnm",
      "sources": [
        "module.c", "values.c", "netns.c", "create.c", "socket.c", "netlink.c", "subscribe.c", "sysctl.c",
        "datagrams.c"
      ],
      "cflags": ["-O2", "-Wall", "-Wextra", "-Werror", "-std=gnu11", "-fvisibility=hidden"],
      "ldflags": ["-pthread"]
    }
  ]
}
