/* load: one thread that holds many WebSocket or HTTP clients against a chat server and measures it.
 *
 *   load fanout   publish at a rate from some clients, count and time every delivery to every client
 *   load idle     hold clients that do nothing; what they cost in memory and CPU
 *   load storm    open clients as fast as possible; what a connect costs
 *   load publish  closed loop: each publisher keeps some acknowledged publishes under way
 *   load http     closed loop: GET a path over kept-alive connections
 *
 * One JSON object is printed on stdout, why clients failed on stderr. Loopback only. `load --help` lists the
 * options. Build: cc -O2 -Wall -Wextra -std=c11 -o load load.c
 *
 * Every published message carries a marker in its text:
 *   ~<run: 4 hex><time: 8 hex, us since our start><number: 8 hex><publisher: 4 hex>~
 * so that any server is measured by the same bytes, whatever it puts around them.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { MARKER_BYTES = 26, MAX_MESSAGE = 8192, MAX_PIDS = 64, MAX_PORTS = 16 };
enum { EVENTS_A_TURN = 64 }; /* few, so that a publish that is due waits for no more than so many reads */
/* Linux hands out 28,000 ports for one pair of addresses; beyond that, clients come from 127.0.0.2 and so on. */
enum { CLIENTS_A_SOURCE = 20000 };
static const uint32_t TIMER = UINT32_MAX; /* epoll data of the timer; all other data are client indexes */

/* ---------------------------------------------------------------- options */

typedef enum { FANOUT, IDLE, STORM, PUBLISH, HTTP } Mode;
typedef enum { WS, SOCKETIO } Protocol;

static const char *const MODES[] = {"fanout", "idle", "storm", "publish", "http"};

static struct {
  Mode mode;
  Protocol protocol;
  uint16_t ports[MAX_PORTS];
  int n_ports;
  pid_t pids[MAX_PIDS];
  int n_pids;
  const char *path, *origin, *auth;
  uint32_t clients, publishers, opening, window;
  uint64_t count;
  double rate, warm, secs, drain, timeout;
  int size, replay;
  bool session, if_none_match;
} opt = {
    .protocol = SOCKETIO, .auth = "", .clients = 100, .publishers = 1, .opening = 64, .window = 1, .rate = 100,
    .warm = 1, .secs = 5, .drain = 3, .timeout = 60, .size = 150,
};

/* ---------------------------------------------------------------- time and delays */

static uint64_t started_us;

static uint64_t now_us(void) { /* since our start */
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000 - started_us;
}

static uint64_t us(double seconds) { return (uint64_t)(seconds * 1e6); }

/* A log-linear histogram: 64 buckets for each power of two, so a value is known to within 1.6 %. */
enum { SUB_BITS = 6, SUB = 1 << SUB_BITS, BUCKETS = SUB * 40 };

static struct {
  uint64_t bucket[BUCKETS], n, max;
} delays;

static void delay_add(uint64_t value) {
  int bucket = (int)value;
  if (value >= SUB) {
    int shift = 63 - __builtin_clzll(value) - SUB_BITS;
    bucket = (shift + 1) * SUB + (int)((value >> shift) - SUB);
  }
  delays.bucket[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
  delays.n++;
  if (value > delays.max) delays.max = value;
}

static double delay_ms(double share) { /* the upper end of the bucket that holds this share of all values */
  uint64_t seen = 0, wanted = (uint64_t)(share * (double)delays.n);
  for (int b = 0; b < BUCKETS && delays.n; b++) {
    seen += delays.bucket[b];
    if (seen <= wanted) continue;
    if (b < SUB) return b / 1e3;
    int shift = b / SUB - 1;
    return (double)((uint64_t)(SUB + b % SUB + 1) << shift) / 1e3;
  }
  return (double)delays.max / 1e3;
}

/* ---------------------------------------------------------------- what the servers use */

typedef struct {
  double user, sys; /* seconds */
  double own;       /* seconds of this process */
} Cpu;

static void add_cpu_of(pid_t pid, Cpu *cpu) {
  char path[64], stat[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  FILE *f = fopen(path, "r");
  if (!f) return;
  size_t n = fread(stat, 1, sizeof stat - 1, f);
  fclose(f);
  stat[n] = 0;
  unsigned long user, sys;
  const char *rest = strrchr(stat, ')'); /* the name before it may hold anything */
  if (!rest || sscanf(rest + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &sys) != 2) return;
  double tick = (double)sysconf(_SC_CLK_TCK);
  cpu->user += (double)user / tick;
  cpu->sys += (double)sys / tick;
}

static Cpu cpu_now(void) {
  Cpu cpu = {0};
  for (int i = 0; i < opt.n_pids; i++) add_cpu_of(opt.pids[i], &cpu);
  struct rusage r;
  getrusage(RUSAGE_SELF, &r);
  cpu.own = (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) + (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
  return cpu;
}

static Cpu cpu_since(Cpu before) {
  Cpu now = cpu_now();
  return (Cpu){now.user - before.user, now.sys - before.sys, now.own - before.own};
}

static double rss_kb(void) {
  long total = 0, kb;
  char path[64], line[256];
  for (int i = 0; i < opt.n_pids; i++) {
    snprintf(path, sizeof path, "/proc/%d/status", (int)opt.pids[i]);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
      if (sscanf(line, "VmRSS: %ld kB", &kb) == 1) total += kb;
    if (f) fclose(f);
  }
  return (double)total;
}

/* ---------------------------------------------------------------- clients */

typedef enum { UNUSED, CONNECTING, UPGRADING, JOINING, READY, DEAD } State;

typedef struct {
  int fd;
  uint8_t state;
  bool has_session;
  uint16_t in_flight;          /* publish: not acknowledged yet */
  uint32_t newest_rank;        /* fanout: place in the common order of the newest delivery */
  uint32_t got;                /* measured deliveries */
  uint32_t replayed;           /* messages that came before it was ready */
  uint32_t kept_n, unsent_n;   /* a frame or header cut by the end of a read; what the socket did not take */
  char *kept, *unsent;
  uint64_t since;              /* when it began to connect, or sent its request */
  uint64_t body_left;          /* http: of the answer under way, or of its chunk */
  bool in_body, chunked;       /* http: the head was read; the body comes in chunks */
  char *etag;
} Client;

static Client *clients;
static int epoll_fd, timer_fd;
static uint32_t begun, ready, dead; /* clients; `ready` are those that are now */
static uint32_t dead_before_measuring;
static uint16_t close_code; /* of the newest WebSocket close */
static bool finished;       /* nothing more is to be published */

/* One read goes here, behind what was kept of the one before; the longest frame we can take. */
static char inbox[16 << 20];
enum { READ_BYTES = 256 << 10 };

static void watch(const Client *c, uint32_t events) {
  struct epoll_event e = {.events = events, .data.u32 = (uint32_t)(c - clients)};
  epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
}

static void fail(Client *c, const char *format, ...) {
  if (c->state == DEAD) return;
  if (dead++ < 3) { /* the first few tell enough */
    va_list args;
    va_start(args, format);
    fprintf(stderr, "client %u: ", (uint32_t)(c - clients));
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
  }
  if (c->state == READY) ready--;
  c->state = DEAD;
  close(c->fd);
}

/* Keep `bytes` bytes; `from` may lie inside what is kept already. */
static void keep(char **buffer, uint32_t *n, const char *from, size_t bytes) {
  char *copy = NULL; /* nearly always: 50,000 clients keep nothing */
  if (bytes && !(copy = malloc(bytes))) abort();
  if (bytes) memcpy(copy, from, bytes);
  free(*buffer);
  *buffer = copy;
  *n = (uint32_t)bytes;
}

static void send_bytes(Client *c, const char *bytes, size_t n) {
  ssize_t took = send(c->fd, bytes, n, MSG_NOSIGNAL);
  if (took < 0 && errno != EAGAIN) {
    fail(c, "send: %s", strerror(errno));
    return;
  }
  if (took < 0) took = 0;
  if ((size_t)took < n) {
    keep(&c->unsent, &c->unsent_n, bytes + took, n - (size_t)took);
    watch(c, EPOLLIN | EPOLLOUT);
  }
}

static void send_rest(Client *c) {
  ssize_t took = send(c->fd, c->unsent, c->unsent_n, MSG_NOSIGNAL);
  if (took < 0) {
    if (errno != EAGAIN) fail(c, "send: %s", strerror(errno));
    return;
  }
  keep(&c->unsent, &c->unsent_n, c->unsent + took, c->unsent_n - (size_t)took);
  if (!c->unsent_n) watch(c, EPOLLIN);
}

/* A masked frame with the mask 0: legal, and what the server does with it costs it the same as any other. */
static void send_frame(Client *c, int opcode, const char *payload, size_t n) {
  char frame[MAX_MESSAGE + 256];
  size_t h = 0;
  frame[h++] = (char)(0x80 | opcode);
  if (n < 126) {
    frame[h++] = (char)(0x80 | n);
  } else {
    frame[h++] = (char)(0x80 | 126);
    frame[h++] = (char)(n >> 8);
    frame[h++] = (char)n;
  }
  memset(frame + h, 0, 4);
  h += 4;
  memcpy(frame + h, payload, n);
  send_bytes(c, frame, h + n);
}

static void send_text(Client *c, const char *text) { send_frame(c, 1, text, strlen(text)); }

/* ---------------------------------------------------------------- publishing and counting */

static uint64_t published;               /* also the number of the next message */
static uint64_t measured_from, measured_to; /* numbers of the messages that count */
static uint64_t delivered, disordered, foreign, skipped, acks, refused;
static uint64_t last_delivery;
static bool measuring;
static uint16_t run_id;

/* The order in which messages were first seen by anybody. If the server has one order for all, every client
 * sees ascending ranks; a rank that does not ascend is a duplicate or another order. */
static uint32_t *rank_of, ranks;
static uint64_t rank_room;

static void write_hex(char *to, int digits, uint64_t value) {
  while (digits--) {
    to[digits] = "0123456789abcdef"[value & 15];
    value >>= 4;
  }
}

static uint8_t hex_digit[256]; /* 16 where it is none */

static bool read_hex(const char *from, int digits, uint64_t *value) {
  uint64_t v = 0;
  uint8_t bad = 0;
  for (int i = 0; i < digits; i++) {
    uint8_t d = hex_digit[(uint8_t)from[i]];
    bad |= d;
    v = v << 4 | d;
  }
  *value = v;
  return bad < 16;
}

/* Write one message, a JSON object of opt.size bytes, as the frontends send it. */
static size_t write_message(char *to, uint32_t publisher, uint64_t now) {
  static const char head[] = "{\"text\":\"";
  static const char tail[] = "\",\"uid\":\"bench\",\"title\":\"Bench\",\"date\":\"2026-01-01T00:00:00.000Z\"}";
  char *p = to;
  p = mempcpy(p, head, sizeof head - 1);
  *p++ = '~';
  write_hex(p, 4, run_id);
  write_hex(p + 4, 8, now);
  write_hex(p + 12, 8, published);
  write_hex(p + 20, 4, publisher);
  p += 24;
  *p++ = '~';
  long padding = opt.size - (p - to) - (long)(sizeof tail - 1);
  if (padding > 0) {
    memset(p, 'x', (size_t)padding);
    p += padding;
  }
  p = mempcpy(p, tail, sizeof tail - 1);
  return (size_t)(p - to);
}

static void number_message(void) {
  if (published >= rank_room) {
    uint64_t room = rank_room ? rank_room * 2 : 1 << 16;
    rank_of = realloc(rank_of, room * sizeof *rank_of);
    if (!rank_of) abort();
    memset(rank_of + rank_room, 0, (room - rank_room) * sizeof *rank_of);
    rank_room = room;
  }
  published++;
}

/* Publish one message; with `acknowledged` the acknowledgement's id is the time, so nothing is remembered. */
static void publish(Client *c, bool acknowledged) {
  char text[MAX_MESSAGE + 128];
  size_t n = 0;
  uint64_t now = now_us();
  if (opt.protocol == SOCKETIO)
    n = (size_t)(acknowledged ? sprintf(text, "42%" PRIu64 "[\"message\",", now) : sprintf(text, "42[\"message\","));
  n += write_message(text + n, (uint32_t)(c - clients), now);
  if (opt.protocol == SOCKETIO) text[n++] = ']';
  number_message();
  c->in_flight++;
  send_frame(c, 1, text, n);
}

static void publish_window(Client *c) {
  while (c->state == READY && c->in_flight < opt.window && !finished && !c->unsent_n) publish(c, true);
}

static void acknowledged(Client *c, uint64_t sent_at, uint64_t now) {
  c->in_flight--;
  if (measuring) {
    acks++;
    delay_add(now - sent_at);
  }
  publish_window(c);
}

static void count_delivery(Client *c, uint64_t number, uint64_t sent_at, uint64_t now) {
  if (number >= published) {
    foreign++;
    return;
  }
  if (!rank_of[number]) rank_of[number] = ++ranks;
  if (rank_of[number] <= c->newest_rank) disordered++;
  else c->newest_rank = rank_of[number];
  if (number < measured_from || number >= measured_to) return;
  delivered++;
  c->got++;
  last_delivery = now;
  if (opt.mode == FANOUT) delay_add(now - sent_at);
}

/* Count every marker in one frame; there may be several messages in it. */
static void scan(Client *c, const char *payload, size_t n, uint64_t now) {
  const char *p = payload, *end = payload + n;
  while ((p = memchr(p, '~', (size_t)(end - p))) && end - p >= MARKER_BYTES) {
    uint64_t run, time, number, publisher;
    if (p[MARKER_BYTES - 1] != '~' || !read_hex(p + 1, 4, &run) || !read_hex(p + 5, 8, &time) ||
        !read_hex(p + 13, 8, &number) || !read_hex(p + 21, 4, &publisher)) {
      p++;
      continue;
    }
    p += MARKER_BYTES;
    if (run != run_id) {
      foreign++;
      continue;
    }
    count_delivery(c, number, time, now);
    /* Plain WebSocket has no acknowledgement: a publisher's own message coming back is taken for one. */
    if (opt.mode == PUBLISH && opt.protocol == WS && publisher == (uint64_t)(c - clients)) acknowledged(c, time, now);
  }
}

/* ---------------------------------------------------------------- joining */

static void begin(Client *c) {
  uint32_t index = (uint32_t)(c - clients);
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  begun++;
  c->since = now_us();
  if (c->fd < 0) {
    fail(c, "socket: %s (ulimit -n?)", strerror(errno));
    return;
  }
  int one = 1;
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (opt.clients > CLIENTS_A_SOURCE) {
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one); /* the port at connect() */
    struct sockaddr_in from = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + index % (opt.clients / CLIENTS_A_SOURCE + 1));
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from)) {
      fail(c, "bind: %s", strerror(errno));
      return;
    }
  }
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(opt.ports[index % (uint32_t)opt.n_ports])};
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  c->state = CONNECTING;
  if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) {
    fail(c, "connect: %s", strerror(errno));
    return;
  }
  struct epoll_event e = {.events = EPOLLOUT, .data.u32 = index};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e);
}

static void send_upgrade(Client *c) {
  char request[1024];
  uint16_t port = opt.ports[(uint32_t)(c - clients) % (uint32_t)opt.n_ports];
  int n = snprintf(request, sizeof request,
                   "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s%s%s\r\n",
                   opt.path, port, opt.origin ? "Origin: " : "", opt.origin ? opt.origin : "",
                   opt.origin ? "\r\n" : "");
  c->state = UPGRADING;
  send_bytes(c, request, (size_t)n);
}

static void send_get(Client *c) {
  char request[1024];
  int n = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n%s%s%s\r\n", opt.path,
                   opt.ports[(uint32_t)(c - clients) % (uint32_t)opt.n_ports], c->etag ? "If-None-Match: " : "",
                   c->etag ? c->etag : "", c->etag ? "\r\n" : "");
  c->since = now_us();
  send_bytes(c, request, (size_t)n);
}

static void become_ready(Client *c) {
  c->state = READY;
  ready++;
  if (opt.mode == STORM) delay_add(now_us() - c->since);
}

static void connected(Client *c) {
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error) {
    fail(c, "connect: %s", strerror(error));
    return;
  }
  watch(c, EPOLLIN);
  if (opt.mode == HTTP) become_ready(c);
  else send_upgrade(c);
}

static void check_joined(Client *c) {
  if (c->state == JOINING && (c->has_session || !opt.session) && c->replayed >= (uint32_t)opt.replay) become_ready(c);
}

/* ---------------------------------------------------------------- what arrives: WebSocket */

static bool starts_with(const char *text, size_t n, const char *prefix) {
  size_t m = strlen(prefix);
  return n >= m && !memcmp(text, prefix, m);
}

static void on_ack(Client *c, const char *text, size_t n, uint64_t now) {
  uint64_t id = 0;
  for (size_t i = 2; i < n && text[i] >= '0' && text[i] <= '9'; i++) id = id * 10 + (uint64_t)(text[i] - '0');
  if (!memmem(text, n, "\"ok\":true", 9) && refused++ == 0) fprintf(stderr, "refused: %.*s\n", (int)n, text);
  acknowledged(c, id, now);
}

static void on_event(Client *c, const char *text, size_t n, uint64_t now) {
  if (c->state == READY) {
    scan(c, text, n, now);
    return;
  }
  if (starts_with(text, n, "42[\"session\"")) c->has_session = true;
  else if (starts_with(text, n, "42[\"message\"")) c->replayed++;
  check_joined(c);
}

static void on_socketio(Client *c, const char *text, size_t n, uint64_t now) {
  char packet = text[0], event = n > 1 ? text[1] : 0;
  char join[1024];
  if (packet == '2') {
    send_text(c, "3");
  } else if (packet == '0') {
    snprintf(join, sizeof join, "40%s", opt.auth);
    send_text(c, join);
  } else if (packet == '4' && event == '0') {
    c->state = JOINING;
    check_joined(c);
  } else if (packet == '4' && event == '2') {
    on_event(c, text, n, now);
  } else if (packet == '4' && event == '3') {
    on_ack(c, text, n, now);
  } else if (packet == '4' && (event == '4' || event == '1')) {
    fail(c, "the server says %.*s", n < 200 ? (int)n : 200, text);
  }
}

static void on_frame(Client *c, int opcode, const char *payload, size_t n, uint64_t now) {
  if (opcode == 9) {
    send_frame(c, 10, payload, n);
  } else if (opcode == 8) {
    close_code = n >= 2 ? (uint16_t)((uint8_t)payload[0] << 8 | (uint8_t)payload[1]) : 1005;
    fail(c, "closed by the server: %u %.*s", close_code, n > 2 ? (int)n - 2 : 0, payload + 2);
  } else if (opcode == 1 && n) {
    if (opt.protocol == SOCKETIO) on_socketio(c, payload, n, now);
    else scan(c, payload, n, now);
  }
}

/* Handle the whole frames in front; return how many bytes they are. */
static size_t take_frames(Client *c, const char *bytes, size_t n, uint64_t now) {
  size_t at = 0;
  while (n - at >= 2 && c->state != DEAD) {
    const uint8_t *f = (const uint8_t *)bytes + at;
    size_t header = 2, length = f[1] & 127;
    if (length == 126) {
      if (n - at < 4) break;
      length = (size_t)f[2] << 8 | f[3];
      header = 4;
    } else if (length == 127) {
      if (n - at < 10) break;
      length = 0;
      for (int i = 2; i < 10; i++) length = length << 8 | f[i];
      header = 10;
    }
    if (length > sizeof inbox / 2) {
      fail(c, "a frame of %zu bytes", length);
      break;
    }
    if (n - at < header + length) break;
    on_frame(c, f[0] & 15, bytes + at + header, length, now);
    at += header + length;
  }
  return at;
}

/* Handle the answer to the handshake; return its bytes, 0 while it is not all here. */
static size_t take_upgrade(Client *c, const char *bytes, size_t n) {
  const char *end = memmem(bytes, n, "\r\n\r\n", 4);
  if (!end) return 0;
  if (!starts_with(bytes, n, "HTTP/1.1 101")) {
    fail(c, "upgrade refused: %.*s", (int)((char *)memchr(bytes, '\r', n) - bytes), bytes);
    return 0;
  }
  c->state = JOINING;
  if (opt.protocol == WS) become_ready(c); /* Socket.IO goes on: open, CONNECT, session */
  return (size_t)(end + 4 - bytes);
}

/* Read once; return the bytes in `inbox`, kept ones included, or 0 when there is nothing new. */
static size_t receive(Client *c, size_t at_most) {
  if (c->kept_n) memcpy(inbox, c->kept, c->kept_n);
  ssize_t n = recv(c->fd, inbox + c->kept_n, at_most, 0);
  if (n > 0) return c->kept_n + (size_t)n;
  if (n == 0) fail(c, "the server ended the connection");
  else if (errno != EAGAIN && errno != EINTR) fail(c, "recv: %s", strerror(errno));
  return 0;
}

static void read_websocket(Client *c) {
  size_t n = receive(c, READ_BYTES), at = 0;
  if (!n) return;
  uint64_t now = now_us();
  if (c->state == UPGRADING) at = take_upgrade(c, inbox, n);
  if (c->state != UPGRADING && c->state != DEAD) at += take_frames(c, inbox + at, n - at, now);
  if (c->state == DEAD) at = n;
  if (c->kept_n || at < n) keep(&c->kept, &c->kept_n, inbox + at, n - at);
}

/* ---------------------------------------------------------------- what arrives: HTTP */

static uint64_t answers_200, answers_304, answers_other, body_bytes;

static const char *find_header(const char *head, size_t n, const char *name) {
  for (const char *line = head; (line = memchr(line, '\n', n - (size_t)(line - head))); ) {
    line++;
    if (n - (size_t)(line - head) > strlen(name) && !strncasecmp(line, name, strlen(name)) && line[strlen(name)] == ':')
      return line + strlen(name) + 1 + strspn(line + strlen(name) + 1, " ");
  }
  return NULL;
}

static void answered(Client *c) {
  uint64_t now = now_us();
  c->in_body = false;
  if (measuring) delay_add(now - c->since);
  if (!finished) send_get(c);
}

static void count_answer(Client *c, int status) {
  if (measuring) {
    if (status == 200) answers_200++;
    else if (status == 304) answers_304++;
    else answers_other++;
  } else if (status != 200 && status != 304) {
    fail(c, "status %d", status);
  }
}

static void expect_body(Client *c, uint64_t bytes) {
  c->body_left = bytes;
  if (measuring) body_bytes += bytes;
}

/* Handle the head of an answer; return its bytes, 0 while it is not all here. */
static size_t take_head(Client *c, const char *bytes, size_t n) {
  const char *end = memmem(bytes, n, "\r\n\r\n", 4);
  if (!end) return 0;
  size_t head = (size_t)(end + 4 - bytes);
  int status = atoi(bytes + sizeof "HTTP/1.1");
  const char *length = find_header(bytes, head, "content-length"), *etag = find_header(bytes, head, "etag");
  bool has_body = status != 304 && status != 204;
  c->in_body = true;
  c->chunked = has_body && !length; /* without either, HTTP/1.1 would end the connection after the body */
  expect_body(c, has_body && length ? strtoull(length, NULL, 10) : 0);
  if (opt.if_none_match && etag && !c->etag) c->etag = strndup(etag, strcspn(etag, "\r"));
  count_answer(c, status);
  return head;
}

/* Handle the line before a chunk; return its bytes, 0 while it is not all here. */
static size_t take_chunk_line(Client *c, const char *bytes, size_t n) {
  const char *end = memmem(bytes, n, "\r\n", 2);
  if (!end) return 0;
  uint64_t size = strtoull(bytes, NULL, 16);
  if (!size) c->chunked = false; /* the last one: only its empty line follows */
  expect_body(c, size + 2);
  return (size_t)(end + 2 - bytes);
}

/* Handle what came; return how many bytes of it are done with. */
static size_t take_answer(Client *c, const char *bytes, size_t n) {
  size_t at = 0, step;
  do {
    if (c->body_left) {
      step = n - at < c->body_left ? n - at : (size_t)c->body_left;
      c->body_left -= step;
    } else {
      step = (c->in_body ? take_chunk_line : take_head)(c, bytes + at, n - at);
    }
    at += step;
    if (step && c->in_body && !c->body_left && !c->chunked && c->state != DEAD) answered(c);
  } while (step && at < n && c->state != DEAD);
  return at;
}

static void read_http(Client *c) {
  if (c->body_left && !c->chunked) {
    /* MSG_TRUNC drops the bytes in the kernel: the history is 200 KB, and copying it would be our bottleneck. */
    ssize_t n = recv(c->fd, inbox, c->body_left < sizeof inbox ? c->body_left : sizeof inbox, MSG_TRUNC);
    if (n == 0) fail(c, "the server ended the connection");
    else if (n > 0 && (c->body_left -= (uint64_t)n) == 0) answered(c);
    return;
  }
  size_t n = receive(c, c->in_body ? READ_BYTES : 4096);
  if (!n) return;
  size_t at = take_answer(c, inbox, n);
  if (c->state != DEAD && (c->kept_n || at < n)) keep(&c->kept, &c->kept_n, inbox + at, n - at);
}

/* ---------------------------------------------------------------- the loop */

static void on_events(Client *c, uint32_t events) {
  if (c->state == DEAD) return;
  if (c->state == CONNECTING) {
    connected(c);
    return;
  }
  if ((events & EPOLLOUT) && c->unsent_n) send_rest(c);
  if (c->state != DEAD && (events & (EPOLLIN | EPOLLHUP | EPOLLERR))) (opt.mode == HTTP ? read_http : read_websocket)(c);
}

static void turn(int timeout_ms) {
  struct epoll_event events[EVENTS_A_TURN];
  int n = epoll_wait(epoll_fd, events, EVENTS_A_TURN, timeout_ms);
  for (int i = 0; i < n; i++) {
    if (events[i].data.u32 == TIMER) {
      uint64_t expirations;
      if (read(timer_fd, &expirations, sizeof expirations) < 0) continue;
    } else {
      on_events(&clients[events[i].data.u32], events[i].events);
    }
  }
}

static void run_for(double seconds) {
  uint64_t end = now_us() + us(seconds), now;
  while ((now = now_us()) < end) {
    uint64_t left = (end - now) / 1000 + 1;
    turn(left < 50 ? (int)left : 50);
  }
}

/* epoll_wait() counts in milliseconds; the timer wakes us for each publish. */
static void set_timer(double rate) {
  long ns = (long)(1e9 / (rate < 10000 ? rate : 10000));
  struct itimerspec t = {.it_interval = {ns / 1000000000, ns % 1000000000}};
  t.it_value = t.it_interval;
  timerfd_settime(timer_fd, 0, &t, NULL);
}

/* ---------------------------------------------------------------- the result */

static int fields;

static void field(const char *name, double value) {
  printf(value == (double)(int64_t)value ? "%s\"%s\":%.0f" : "%s\"%s\":%.6g", fields++ ? "," : "{", name, value);
}

static void report_delays(void) {
  if (!delays.n) return;
  field("p50_ms", delay_ms(0.50));
  field("p99_ms", delay_ms(0.99));
  field("p999_ms", delay_ms(0.999));
  field("max_ms", (double)delays.max / 1e3);
}

static void report_cores(Cpu spent, double seconds) {
  field("server_cores", (spent.user + spent.sys) / seconds);
  field("load_cores", spent.own / seconds);
}

static void report_cpu_per(const char *what, Cpu spent, double units) {
  char name[64];
  if (!opt.n_pids || units <= 0) return;
  snprintf(name, sizeof name, "cpu_us_per_%s", what);
  field(name, (spent.user + spent.sys) / units * 1e6);
  field("user_us", spent.user / units * 1e6);
  field("sys_us", spent.sys / units * 1e6);
}

/* ---------------------------------------------------------------- the modes */

static double rss_before_kb;

/* Open all clients, `opening` at a time, and say what that cost. */
static void open_all(void) {
  rss_before_kb = rss_kb();
  Cpu before = cpu_now();
  uint64_t start = now_us(), patience = start + us(opt.timeout);
  while (ready + dead < opt.clients && now_us() < patience) {
    while (begun < opt.clients && begun - ready - dead < opt.opening) begin(&clients[begun]);
    turn(50);
  }
  double seconds = (double)(now_us() - start) / 1e6;
  Cpu spent = cpu_since(before);
  dead_before_measuring = dead;
  field("clients", ready);
  field("failed_to_connect", opt.clients - ready);
  field("connect_seconds", seconds);
  if (opt.mode != STORM) return;
  field("connects_per_s", ready / seconds);
  report_cpu_per("connect", spent, ready);
  report_cores(spent, seconds);
  report_delays();
  uint64_t replayed = 0;
  for (uint32_t i = 0; i < begun; i++) replayed += clients[i].replayed;
  field("replayed", (double)replayed);
}

static void report_dropped(void) {
  field("dropped", dead - dead_before_measuring);
  if (close_code) field("close_code", close_code);
}

static void hold_idle(void) {
  run_for(opt.warm); /* what connecting left behind */
  double rss = rss_kb();
  Cpu before = cpu_now();
  run_for(opt.secs);
  Cpu spent = cpu_since(before);
  field("rss_kb_per_client", ready ? (rss - rss_before_kb) / ready : 0);
  field("rss_before_mb", rss_before_kb / 1024);
  field("rss_mb", rss / 1024);
  field("rss_end_mb", rss_kb() / 1024);
  report_cores(spent, opt.secs);
  report_dropped();
}

/* Publish what is due at `rate`; a publisher whose socket takes no more skips its turn. */
static void publish_due(uint64_t start, uint64_t *offered, uint64_t *worst_lag) {
  uint64_t now = now_us(), due = (uint64_t)((double)(now - start) * opt.rate / 1e6);
  for (int burst = 0; *offered < due && burst < 64; burst++) {
    uint64_t when = start + (uint64_t)((double)*offered * 1e6 / opt.rate);
    if (measuring && now > when && now - when > *worst_lag) *worst_lag = now - when;
    Client *c = &clients[(*offered)++ % opt.publishers];
    if (c->state == READY && !c->unsent_n) publish(c, false);
    else if (measuring) skipped++;
  }
}

static void report_deliveries(uint64_t offered, uint64_t expected, double seconds) {
  uint32_t fewest = UINT32_MAX;
  for (uint32_t i = 0; i < opt.clients; i++)
    if (clients[i].got < fewest) fewest = clients[i].got;
  field("published", (double)(measured_to - measured_from));
  field("expected", (double)expected);
  field("delivered", (double)delivered);
  field("lost_pct", expected ? 100.0 * (1 - (double)delivered / (double)expected) : 0);
  field("offered_per_s", opt.rate * opt.clients);
  field("deliveries_per_s", (double)delivered / seconds);
  field("fewest_at_a_client", fewest);
  field("disordered", (double)disordered);
  field("foreign", (double)foreign);
  field("skipped", (double)skipped);
  field("offered", (double)offered);
}

static void fan_out(void) {
  uint64_t offered = 0, offered_before = 0, worst_lag = 0, audience = ready;
  run_for(0.3);
  measured_from = measured_to = UINT64_MAX;
  set_timer(opt.rate);
  uint64_t start = now_us(), from = start + us(opt.warm), to = from + us(opt.secs);
  Cpu before = cpu_now();
  while (now_us() < to) {
    if (!measuring && now_us() >= from) {
      measuring = true;
      measured_from = published;
      offered_before = offered;
      before = cpu_now();
    }
    publish_due(start, &offered, &worst_lag);
    turn(50);
  }
  measured_to = published;
  offered -= offered_before;
  uint64_t expected = (measured_to - measured_from) * audience, patience = to + us(opt.drain);
  while (delivered < expected && now_us() < patience) turn(50);
  /* All the work for these messages counts, also what came after the last one of them was published. */
  double window = (double)(now_us() - from) / 1e6;
  Cpu spent = cpu_since(before);
  if (last_delivery < to) last_delivery = to;
  report_deliveries(offered, offered * audience, (double)(last_delivery - from) / 1e6);
  report_delays();
  report_cpu_per("delivery", spent, (double)delivered);
  report_cores(spent, window);
  field("publish_lag_max_ms", (double)worst_lag / 1e3);
  field("rss_mb", rss_kb() / 1024);
  report_dropped();
}

/* Run a closed loop that goes on by itself for the warm-up and the measured time. */
static Cpu measure_closed_loop(void) {
  run_for(opt.warm);
  measuring = true;
  Cpu before = cpu_now();
  uint64_t end = now_us() + us(opt.secs), now;
  while ((now = now_us()) < end && !(opt.count && acks >= opt.count)) turn(10);
  Cpu spent = cpu_since(before);
  measuring = false;
  finished = true;
  return spent;
}

static void publish_closed_loop(void) {
  for (uint32_t i = 0; i < opt.publishers; i++) publish_window(&clients[i]);
  uint64_t begin_at = now_us() + us(opt.warm);
  Cpu spent = measure_closed_loop();
  double seconds = (double)(now_us() - begin_at) / 1e6;
  uint64_t unacknowledged = 1, patience = now_us() + us(opt.drain);
  while (unacknowledged && now_us() < patience) {
    turn(10);
    unacknowledged = 0;
    for (uint32_t i = 0; i < opt.publishers; i++) unacknowledged += clients[i].in_flight;
  }
  field("acks", (double)acks);
  field("acks_per_s", (double)acks / seconds);
  field("refused", (double)refused);
  field("unacknowledged", (double)unacknowledged);
  field("disordered", (double)disordered);
  report_delays();
  report_cpu_per("ack", spent, (double)acks);
  report_cores(spent, seconds);
  report_dropped();
}

static void get_closed_loop(void) {
  for (uint32_t i = 0; i < opt.clients; i++)
    if (clients[i].state == READY) send_get(&clients[i]);
  Cpu spent = measure_closed_loop();
  uint64_t all = answers_200 + answers_304 + answers_other;
  field("responses_per_s", (double)all / opt.secs);
  field("status_200", (double)answers_200);
  field("status_304", (double)answers_304);
  field("status_other", (double)answers_other);
  field("mean_body_bytes", answers_200 ? (double)body_bytes / (double)answers_200 : 0);
  report_delays();
  report_cpu_per("response", spent, (double)all);
  report_cores(spent, opt.secs);
  report_dropped();
}

/* ---------------------------------------------------------------- start */

static const char USAGE[] =
    "usage: load fanout|idle|storm|publish|http --port P [--port P ...] [options]\n"
    "  --protocol ws|socketio   what the server speaks (default socketio)\n"
    "  --path PATH              instead of /ws, /socket.io/?EIO=4&transport=websocket, /messages\n"
    "  --origin ORIGIN          send this Origin\n"
    "  --auth JSON              Socket.IO: what to connect with\n"
    "  --session                Socket.IO: a client is ready once it got the event session ...\n"
    "  --replay N               ... and N messages\n"
    "  --clients N              connections (default 100); spread over the ports in turn\n"
    "  --opening N              so many connect at a time (default 64)\n"
    "  --publishers N           so many of them publish (default 1)\n"
    "  --rate R                 fanout: messages a second, of all publishers together (default 100)\n"
    "  --window N               publish: unacknowledged publishes of each publisher (default 1)\n"
    "  --count N                publish: stop after so many acknowledgements\n"
    "  --if-none-match          http: send the ETag of the first answer\n"
    "  --size BYTES             of a message, as JSON (default 150)\n"
    "  --warm S, --secs S       before measuring, and measuring (default 1 and 5)\n"
    "  --drain S                wait so long for what is still to come (default 3)\n"
    "  --timeout S              for connecting (default 60)\n"
    "  --pid PID                a process of the server: its CPU and memory are measured; may be repeated\n";

static void usage(const char *problem, const char *what) {
  fprintf(stderr, "load: %s%s\n%s", problem, what, USAGE);
  exit(2);
}

static double number(const char *text) {
  char *end;
  double value = strtod(text, &end);
  if (end == text || *end || value < 0) usage("not a number: ", text);
  return value;
}

static void read_mode(const char *name) {
  for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++)
    if (!strcmp(name, MODES[i])) {
      opt.mode = (Mode)i;
      return;
    }
  usage("unknown mode ", name);
}

static void read_options(int argc, char **argv) {
  static const struct option longs[] = {
      {"port", 1, 0, 'p'},    {"protocol", 1, 0, 'P'}, {"path", 1, 0, 'u'},       {"origin", 1, 0, 'o'},
      {"auth", 1, 0, 'a'},    {"session", 0, 0, 'S'},  {"replay", 1, 0, 'r'},     {"clients", 1, 0, 'n'},
      {"opening", 1, 0, 'O'}, {"rate", 1, 0, 'R'},     {"publishers", 1, 0, 'k'}, {"window", 1, 0, 'w'},
      {"count", 1, 0, 'c'},   {"size", 1, 0, 's'},     {"if-none-match", 0, 0, 'i'}, {"warm", 1, 0, 'W'},
      {"secs", 1, 0, 't'},    {"drain", 1, 0, 'd'},    {"timeout", 1, 0, 'T'},    {"pid", 1, 0, 'q'},
      {"help", 0, 0, 'h'},    {0, 0, 0, 0}};
  if (argc < 2 || !strcmp(argv[1], "--help")) {
    fputs(USAGE, stdout);
    exit(argc < 2 ? 2 : 0);
  }
  read_mode(argv[1]);
  for (int o; (o = getopt_long(argc - 1, argv + 1, "", longs, NULL)) != -1;) {
    switch (o) {
      case 'p':
        if (opt.n_ports == MAX_PORTS) usage("too many ports", "");
        opt.ports[opt.n_ports++] = (uint16_t)number(optarg);
        break;
      case 'q':
        if (opt.n_pids == MAX_PIDS) usage("too many pids", "");
        opt.pids[opt.n_pids++] = (pid_t)number(optarg);
        break;
      case 'P':
        if (strcmp(optarg, "ws") && strcmp(optarg, "socketio")) usage("unknown protocol ", optarg);
        opt.protocol = strcmp(optarg, "ws") ? SOCKETIO : WS;
        break;
      case 'u': opt.path = optarg; break;
      case 'o': opt.origin = optarg; break;
      case 'a': opt.auth = optarg; break;
      case 'S': opt.session = true; break;
      case 'i': opt.if_none_match = true; break;
      case 'r': opt.replay = (int)number(optarg); break;
      case 'n': opt.clients = (uint32_t)number(optarg); break;
      case 'O': opt.opening = (uint32_t)number(optarg); break;
      case 'k': opt.publishers = (uint32_t)number(optarg); break;
      case 'w': opt.window = (uint32_t)number(optarg); break;
      case 'c': opt.count = (uint64_t)number(optarg); break;
      case 's': opt.size = (int)number(optarg); break;
      case 'R': opt.rate = number(optarg); break;
      case 'W': opt.warm = number(optarg); break;
      case 't': opt.secs = number(optarg); break;
      case 'd': opt.drain = number(optarg); break;
      case 'T': opt.timeout = number(optarg); break;
      case 'h': fputs(USAGE, stdout); exit(0);
      default: usage("see the options", "");
    }
  }
}

static void check_options(void) {
  if (!opt.n_ports) usage("--port is missing", "");
  if (!opt.clients || !opt.publishers || !opt.opening || !opt.window) usage("zero clients make no load", "");
  if (opt.size > MAX_MESSAGE) usage("--size is too large", "");
  if (opt.rate <= 0 || opt.secs <= 0) usage("--rate and --secs must be more than 0", "");
  if (opt.publishers > opt.clients) opt.publishers = opt.clients;
  if (!opt.path)
    opt.path = opt.mode == HTTP         ? "/messages"
               : opt.protocol == SOCKETIO ? "/socket.io/?EIO=4&transport=websocket"
                                          : "/ws";
}

static void set_up(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  started_us = (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
  run_id = (uint16_t)(getpid() ^ t.tv_nsec);
  memset(hex_digit, 16, sizeof hex_digit);
  for (int i = 0; i < 16; i++) hex_digit[(uint8_t)"0123456789abcdef"[i]] = (uint8_t)i;
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  clients = calloc(opt.clients, sizeof *clients);
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  struct epoll_event e = {.events = EPOLLIN, .data.u32 = TIMER};
  if (!clients || epoll_fd < 0 || timer_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &e)) {
    perror("load");
    exit(1);
  }
}

int main(int argc, char **argv) {
  read_options(argc, argv);
  check_options();
  set_up();
  open_all();
  if (opt.mode == FANOUT) fan_out();
  else if (opt.mode == IDLE) hold_idle();
  else if (opt.mode == PUBLISH) publish_closed_loop();
  else if (opt.mode == HTTP) get_closed_loop();
  puts("}");
  return 0;
}
