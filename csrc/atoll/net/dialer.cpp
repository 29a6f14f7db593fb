#include "atoll/net/dialer.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace reef {

namespace {

// A joiner often dials a moment before the other side listens or knows of it: the first pauses are
// short. The longest bounds both the traffic and the delay after the other side has come back.
constexpr Nanos kFirstPause = 20 * kMillisecond;
constexpr Nanos kLongestPause = 500 * kMillisecond;

}  // namespace

// One connection of a try.
struct Dialer::Line final : Ready {
  enum class Stage : std::uint8_t { connecting, greeted, through };
  Line(Dialer& its_dialer, Call& its_call, std::uint32_t its_index, Fd its_socket)
      : dialer(its_dialer), call(its_call), index(its_index), socket(std::move(its_socket)) {}
  void on_ready(std::uint32_t) override { dialer.progress(*this); }

  Dialer& dialer;
  Call& call;
  std::uint32_t index;
  Fd socket;
  Registration registration;
  Stage stage = Stage::connecting;
  GreetingBytes bytes{};
  std::size_t filled = 0;
};

// The whole endeavour to reach one peer.
struct Dialer::Call {
  PeerId peer;
  std::string host;
  std::uint16_t port = 0;
  Nanos began = 0;
  Nanos deadline = 0;
  Nanos pause = kFirstPause;
  Nanos next_try = 0;          // when no try is under way
  Nanos try_deadline = kNever;  // when one is
  std::uint64_t ticket = 0;    // of the look-up under way; 0: none
  std::uint64_t tries = 0;
  std::vector<Address> addresses;
  Nonce nonce{};
  std::vector<std::unique_ptr<Line>> lines;
  std::string last_error = "no answer";
};

Dialer::Dialer(Poller& poller, const Options& options, DialerOwner& owner)
    : poller_(poller), options_(options), owner_(owner) {}

Dialer::~Dialer() = default;

void Dialer::sweep() { dead_.clear(); }

void Dialer::dial(const PeerId& peer, const std::string& host, std::uint16_t port, Nanos now) {
  cancel(peer);
  auto& call = *calls_.emplace(peer, std::make_unique<Call>()).first->second;
  call.peer = peer;
  call.host = host;
  call.port = port;
  call.began = now;
  call.deadline = now + options_.dial_timeout;
  begin_try(call, now);
}

bool Dialer::cancel(const PeerId& peer) {
  const auto at = calls_.find(peer);
  if (at == calls_.end()) {
    return false;
  }
  hang_up(*at->second);
  calls_.erase(at);
  return true;
}

void Dialer::begin_try(Call& call, Nanos now) {
  ++call.tries;
  call.try_deadline = std::min(call.deadline, now + options_.handshake_timeout);
  if (call.addresses.empty()) {
    auto numeric = resolve(call.host, call.port, true);
    if (!numeric || numeric.value().empty()) {
      call.ticket = ++last_ticket_;
      owner_.look_up(call.ticket, call.host, call.port);
      return;
    }
    call.addresses = std::move(numeric.value());
  }
  const Address& address = call.addresses[(call.tries - 1) % call.addresses.size()];
  call.nonce = draw_nonce();
  for (std::uint32_t i = 0; i < options_.connections; ++i) {
    auto socket = start_connect(address);
    if (!socket) {
      fail_try(call, socket.error().message, now);
      return;
    }
    auto line = std::make_unique<Line>(*this, call, i, std::move(socket.value()));
    auto registration = poller_.add(line->socket.get(), EPOLLOUT, *line);
    if (!registration) {
      fail_try(call, registration.error().message, now);
      return;
    }
    line->registration = std::move(registration.value());
    call.lines.push_back(std::move(line));
  }
}

void Dialer::resolved(std::uint64_t ticket, Result<std::vector<Address>> addresses, Nanos now) {
  for (auto& [peer, call] : calls_) {
    if (call->ticket != ticket) {
      continue;
    }
    call->ticket = 0;
    if (!addresses) {
      fail_try(*call, addresses.error().message, now);
      return;
    }
    call->addresses = std::move(addresses.value());
    if (call->addresses.empty()) {
      fail_try(*call, "host " + call->host + " has no address", now);
      return;
    }
    begin_try(*call, now);
    return;
  }
}

// Something happened on one line: may end the try, or the whole call.
void Dialer::progress(Line& line) {
  Call& call = line.call;
  std::string why;
  bool good = true;
  switch (line.stage) {
    case Line::Stage::connecting: good = greet(line, why); break;
    case Line::Stage::greeted: good = hear(line, why); break;
    case Line::Stage::through:  // only its end is watched
      good = false;
      why = "the peer closed the connection during the handshake";
      break;
  }
  if (!good) {
    fail_try(call, why, monotonic_now());
    return;
  }
  const bool through = std::all_of(call.lines.begin(), call.lines.end(), [](const auto& one) {
    return one->stage == Line::Stage::through;
  });
  if (through) {
    connect_through(call);
  }
}

bool Dialer::greet(Line& line, std::string& why) {
  if (const int reason = socket_error(line.socket.get()); reason != 0) {
    why = strerror(reason);
    return false;
  }
  Hello hello;
  hello.connection_index = line.index;
  hello.connections = options_.connections;
  hello.sender = options_.self;
  hello.receiver = line.call.peer;
  hello.nonce = line.call.nonce;
  hello.secret = options_.secret;
  const GreetingBytes bytes = encode_greeting(FrameType::hello, hello);
  const ssize_t sent =
      ::send(line.socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent != static_cast<ssize_t>(bytes.size())) {  // a fresh socket takes so few bytes at once
    why = sent < 0 ? strerror(errno) : "a fresh socket took only part of a greeting";
    return false;
  }
  line.stage = Line::Stage::greeted;
  line.registration.watch(EPOLLIN);
  return true;
}

bool Dialer::hear(Line& line, std::string& why) {
  const ssize_t got = ::recv(line.socket.get(), line.bytes.data() + line.filled,
                             kGreetingBytes - line.filled, MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
    return true;
  }
  if (got <= 0) {
    why = got < 0 ? strerror(errno) : "the peer refused the handshake";
    return false;
  }
  line.filled += static_cast<std::size_t>(got);
  if (line.filled < kGreetingBytes) {
    return true;
  }
  const auto ack = parse_greeting(FrameType::hello_ack, line.bytes);
  if (!ack) {
    why = "what answers there is no peer: " + ack.error().message;
    return false;
  }
  const Hello& hello = ack.value();
  if (hello.sender != line.call.peer || hello.receiver != options_.self ||
      hello.nonce != line.call.nonce || hello.connection_index != line.index ||
      hello.connections != options_.connections ||
      !same_secret(hello.secret, options_.secret)) {
    why = "another peer, or a peer of another job, answers there";
    return false;
  }
  line.stage = Line::Stage::through;
  line.registration.watch(EPOLLRDHUP);  // its frames are for the link to read
  return true;
}

void Dialer::connect_through(Call& call) {
  std::vector<Fd> sockets;
  for (const auto& line : call.lines) {
    line->registration.reset();
    sockets.push_back(std::move(line->socket));
  }
  const PeerId peer = call.peer;
  const Nonce nonce = call.nonce;
  cancel(peer);
  owner_.dialled(peer, nonce, std::move(sockets));
}

void Dialer::hang_up(Call& call) {
  for (auto& line : call.lines) {
    line->registration.reset();
    line->socket.reset();
    dead_.push_back(std::move(line));
  }
  call.lines.clear();
}

void Dialer::fail_try(Call& call, const std::string& why, Nanos now) {
  hang_up(call);
  call.last_error = why;
  call.ticket = 0;
  call.try_deadline = kNever;
  call.next_try = now + call.pause;
  call.pause = std::min(2 * call.pause, kLongestPause);
}

void Dialer::give_up(Call& call, Nanos now) {
  const std::string message = "peer " + call.peer.shorthand() + " at " +
                              endpoint_text(call.host, call.port) +
                              " could not be reached: " + call.last_error + " (" +
                              std::to_string(call.tries) + " tries in " +
                              std::to_string((now - call.began) / kMillisecond) + " ms)";
  const PeerId peer = call.peer;
  cancel(peer);
  owner_.unreachable(peer, message);
}

Nanos Dialer::tick(Nanos now) {
  Nanos next = kNever;
  std::vector<Call*> calls;  // giving up changes the map
  for (auto& [peer, call] : calls_) {
    calls.push_back(call.get());
  }
  for (Call* call : calls) {
    if (now >= call->deadline) {
      give_up(*call, now);
      continue;
    }
    if (call->try_deadline != kNever && now >= call->try_deadline) {
      fail_try(*call, "no answer", now);
    }
    if (call->try_deadline == kNever && now >= call->next_try) {
      begin_try(*call, now);
    }
    next = std::min({next, call->deadline,
                     call->try_deadline == kNever ? call->next_try : call->try_deadline});
  }
  return next;
}

}  // namespace reef
