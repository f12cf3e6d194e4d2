/* floor: the least that a broadcast server on this machine can do. One send() for each client and turn of the
 * loop, whatever messages came in it; no history, no Redis, no JSON. It speaks just enough plain WebSocket for
 * load.c, at any path, and it is what the servers' costs are divided by.
 *
 * Build: cc -O2 -Wall -Wextra -std=c11 -o floor floor.c      Use: floor PORT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FD = 1 << 18, BUFFER = 1 << 20, EVENTS_A_TURN = 256 };

/* The answer to the one key that load.c sends, the example of RFC 6455. */
static const char UPGRADE[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

static int epoll_fd, listener;
static int members[MAX_FD], n_members; /* descriptors, upgraded */
static int place[MAX_FD];              /* of a descriptor in members, -1 before its upgrade */
static uint8_t in[BUFFER], out[2 * BUFFER];
static size_t out_n;

static void join(int fd) {
  place[fd] = n_members;
  members[n_members++] = fd;
}

static void leave(int fd) {
  if (place[fd] >= 0) {
    int last = members[--n_members];
    members[place[fd]] = last;
    place[last] = place[fd];
  }
  close(fd);
}

static void accept_all(void) {
  int fd, one = 1;
  while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
    if (fd >= MAX_FD) {
      close(fd);
      continue;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
    place[fd] = -1;
  }
}

/* Append a client's frame to what goes out, unmasked; return its bytes, 0 if it is not all here.
 * load.c masks with 0, and sends frames of less than 64 KB. */
static size_t pass_on(const uint8_t *frame, size_t n) {
  if (n < 6) return 0;
  size_t length = frame[1] & 127, header = 2;
  if (length == 126) {
    length = (size_t)frame[2] << 8 | frame[3];
    header = 4;
  }
  size_t whole = header + 4 + length;
  if (n < whole) return 0;
  if ((frame[0] & 15) == 1 && out_n + header + length <= sizeof out) {
    memcpy(out + out_n, frame, header);
    out[out_n + 1] &= 127;
    memcpy(out + out_n + header, frame + header + 4, length);
    out_n += header + length;
  }
  return whole;
}

static void read_from(int fd) {
  /* Peek first: a frame that is cut stays in the socket, so nothing has to be kept for anybody. */
  ssize_t n = recv(fd, in, sizeof in, place[fd] < 0 ? 0 : MSG_PEEK);
  if (n <= 0) {
    if (n == 0 || errno != EAGAIN) leave(fd);
    return;
  }
  if (place[fd] < 0) {
    if (send(fd, UPGRADE, sizeof UPGRADE - 1, MSG_NOSIGNAL) > 0) join(fd);
    return;
  }
  size_t at = 0, step;
  while ((step = pass_on(in + at, (size_t)n - at))) at += step;
  if (at) recv(fd, NULL, at, MSG_TRUNC);
}

static void send_to_all(void) {
  for (int i = n_members - 1; i >= 0; i--) {
    /* A client that cannot take it all has no place at the floor: keeping the rest would be work. */
    if (send(members[i], out, out_n, MSG_NOSIGNAL) != (ssize_t)out_n) leave(members[i]);
  }
  out_n = 0;
}

static int listen_on(uint16_t port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 4096)) {
    perror("floor");
    exit(1);
  }
  return fd;
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fputs("usage: floor PORT\n", stderr);
    return 2;
  }
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  listener = listen_on((uint16_t)atoi(argv[1]));
  epoll_fd = epoll_create1(0);
  struct epoll_event e = {.events = EPOLLIN, .data.fd = listener}, events[EVENTS_A_TURN];
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e);
  for (;;) {
    int n = epoll_wait(epoll_fd, events, EVENTS_A_TURN, -1);
    for (int i = 0; i < n; i++) {
      if (events[i].data.fd == listener) accept_all();
      else read_from(events[i].data.fd);
    }
    if (out_n) send_to_all();
  }
}
