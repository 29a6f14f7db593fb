#include "atoll/net/local_dialer.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "atoll/net/local_socket.h"
#include "atoll/net/shm_tuning.h"

namespace reef {

struct LocalDialer::Call final : Ready {
  Call(LocalDialer& its_dialer, DialTarget its_target, Nanos its_deadline)
      : dialer(its_dialer), target(std::move(its_target)), deadline(its_deadline) {}
  void on_ready(std::uint32_t) override { dialer.hear(*this); }

  LocalDialer& dialer;
  DialTarget target;
  Nanos deadline;
  Hello hello;
  LocalChannel channel;
  Registration registration;  // ends before the socket is closed: declared behind it
};

LocalDialer::LocalDialer(Poller& poller, const Options& options, LocalDialerOwner& owner)
    : poller_(poller), options_(options), owner_(owner) {}

LocalDialer::~LocalDialer() = default;

void LocalDialer::sweep() { dead_.clear(); }

void LocalDialer::dial(const DialTarget& target, Nanos now) {
  cancel(target.peer);
  auto call = std::make_unique<Call>(*this, target, now + options_.patience);
  Result<Fd> socket = Error{Code::io, ENOENT, "no endpoint is known"};
  for (const Endpoint& endpoint : target.endpoints) {
    socket = connect_locally({target.peer, endpoint.port});
    if (socket) {
      break;
    }
  }
  if (!socket) {
    owner_.not_local(target, "");
    return;
  }
  call->channel.socket = std::move(socket.value());
  if (Status status = greet(*call); !status.ok()) {
    ++failures_;
    owner_.not_local(target, status.error().message);
    return;
  }
  calls_.emplace(target.peer, std::move(call));
}

Status LocalDialer::greet(Call& call) {
  LocalChannel& channel = call.channel;
  if (!same_user(channel.socket.get())) {
    return Error{Code::io, EACCES, "the Unix socket of the peer belongs to another user"};
  }
  auto memory = ShmMemory::create(shm::kRingBytes);
  if (!memory) {
    return memory.error();
  }
  channel.memory = std::move(memory.value());
  channel.own_bell = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  channel.peer_bell = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!channel.own_bell.valid() || !channel.peer_bell.valid()) {
    const int reason = errno;
    return Error{Code::io, reason, std::string("cannot create an eventfd: ") + strerror(reason)};
  }
  channel.dialled = true;
  auto registration = poller_.add(channel.socket.get(), EPOLLIN | EPOLLRDHUP, call);
  if (!registration) {
    return registration.error();
  }
  call.registration = std::move(registration.value());
  call.hello.sender = options_.self;
  call.hello.receiver = call.target.peer;
  call.hello.nonce = draw_nonce();
  call.hello.secret = options_.secret;
  // As the acceptor sees them: the memory, the bell to hear, the bell to ring.
  const std::array<int, 3> fds = {channel.memory.fd(), channel.peer_bell.get(),
                                  channel.own_bell.get()};
  return send_message(channel.socket.get(), encode_greeting(FrameType::hello, call.hello), fds);
}

void LocalDialer::hear(Call& call) {
  GreetingBytes bytes;
  const auto message = receive_message(call.channel.socket.get(), bytes, 0);
  if (message && message.value().bytes == 0) {
    return;
  }
  const bool whole = message && message.value().bytes == bytes.size();
  const auto ack = whole ? parse_greeting(FrameType::hello_ack, bytes)
                         : Result<Hello>(Error{Code::protocol, 0, "no greeting"});
  if (!ack || !answers(ack.value(), call.hello)) {
    const bool closed = !message;
    fail(call.target.peer, closed ? "the peer did not take it" : "what answers is no peer of this job");
    return;
  }
  call.registration.reset();
  LocalChannel channel = std::move(call.channel);
  channel.memory.close_fd();
  const Hello hello = call.hello;
  cancel(hello.receiver);
  owner_.dialled(hello.receiver, hello.nonce, std::move(channel));
}

bool LocalDialer::cancel(const PeerId& peer) {
  const auto at = calls_.find(peer);
  if (at == calls_.end()) {
    return false;
  }
  at->second->registration.reset();
  at->second->channel = LocalChannel{};
  dead_.push_back(std::move(at->second));
  calls_.erase(at);
  return true;
}

void LocalDialer::fail(const PeerId& peer, const std::string& why) {
  ++failures_;
  const DialTarget target = calls_.at(peer)->target;
  cancel(peer);
  owner_.not_local(target, why);
}

Nanos LocalDialer::tick(Nanos now) {
  std::vector<PeerId> late;  // failing changes the map
  Nanos next = kNever;
  for (const auto& [peer, call] : calls_) {
    if (now >= call->deadline) {
      late.push_back(peer);
    } else {
      next = std::min(next, call->deadline);
    }
  }
  for (const PeerId& peer : late) {
    if (calls_.contains(peer)) {
      fail(peer, "no answer within " + std::to_string(options_.patience / kMillisecond) + " ms");
    }
  }
  return next;
}

}  // namespace reef
