// The loop, commands and the actions of the machines. shell_links.cpp has links and handshakes.
#include "atoll/engine/shell.h"

#include <sys/epoll.h>

#include <algorithm>
#include <utility>

#include "atoll/base/endian.h"
#include "atoll/engine/frame_of.h"

namespace reef {

namespace {

// How long close() waits for what is queued to leave and for the peers to close.
constexpr Nanos kClosePatience = 250 * kMillisecond;

std::string explain(Code code) {
  switch (code) {
    case Code::ok: return "";
    case Code::mismatch: return "the members disagree about this op (kind, size, dtype or plan)";
    case Code::deadline: return "the op's deadline passed on this or another member";
    case Code::aborted: return "the op was aborted on this or another member";
    case Code::closed: return "the engine is closed";
    case Code::peer_lost: return "the link to the partner is down";
    case Code::not_member: return "this peer is in no view";
    case Code::invalid: return "the op was refused";
    case Code::view_changed: return "the view is another one than the op was made for";
    default: return code_name(code);
  }
}

}  // namespace

Shell::Shell(const EngineOptions& options, std::unique_ptr<TlsContext> tls,
             std::unique_ptr<Poller> poller,
             std::shared_ptr<Mailbox> mailbox, OpTable& ops, EventQueue& events)
    : options_(options),
      tls_(std::move(tls)),
      poller_(std::move(poller)),
      mailbox_(std::move(mailbox)),
      ops_(ops),
      events_(events),
      core_(options.self, options.core) {
  Dialer::Options dialing;
  dialing.self = options.self;
  dialing.secret = options.secret;
  dialing.dial_timeout = options.dial_timeout;
  dialing.handshake_timeout = options.handshake_timeout;
  dialing.tls = tls_.get();
  dialing.hello_flags = options.checksums ? kHelloChecksums : 0;
  DialerOwner& owner = *this;
  dialer_ = std::make_unique<Dialer>(*poller_, dialing, owner);
  Relay::Options relaying;
  relaying.patience = options.handshake_timeout;
  relaying.silence = options.silence;
  relaying.keepalive = options.keepalive;
  relaying.congestion = options.congestion;
  RelayOwner& its_owner = *this;
  relay_ = std::make_unique<Relay>(*poller_, relaying, its_owner);
}

Shell::~Shell() = default;

Result<std::unique_ptr<Shell>> Shell::create(const EngineOptions& options,
                                             std::unique_ptr<TlsContext> tls, Fd listener,
                                             std::shared_ptr<Mailbox> mailbox, OpTable& ops,
                                             EventQueue& events) {
  auto poller = Poller::create();
  if (!poller) {
    return poller.error();
  }
  std::unique_ptr<Shell> shell(
      new Shell(options, std::move(tls), std::move(poller.value()), std::move(mailbox), ops, events));
  const std::uint16_t port = local_port(listener.get());
  const Acceptor::Options accepting{options.self, options.secret, options.handshake_timeout,
                                      shell->tls_.get(), shell->options_.checksums ? kHelloChecksums : 0};
  auto acceptor = Acceptor::create(*shell->poller_, std::move(listener), accepting, *shell);
  if (!acceptor) {
    return acceptor.error();
  }
  shell->acceptor_ = std::move(acceptor.value());
  if (options.shared_memory) {
    shell->meet_locally(port);
  }
  auto commands = shell->poller_->add(shell->mailbox_->fd(), EPOLLIN, *shell);
  if (!commands) {
    return commands.error();
  }
  shell->commands_ = std::move(commands.value());
  return shell;
}

// ---- the loop -----------------------------------------------------------------------------------

void Shell::run() {
  if (local_dialer_) {
    lives_ = std::make_unique<HeldLives>();
    deaths_ = DeathWatch::create(
        [mailbox = mailbox_](std::uint64_t ticket) { mailbox->post(DiedCommand{ticket}); });
  }
  while (!closing_) {
    const Nanos now = monotonic_now();
    const Nanos next = tick(now);
    const Nanos timeout = next == kNever ? kNever : std::max<Nanos>(0, next - monotonic_now());
    poller_->wait(timeout, [this] { settle(); });
  }
  finish();
}

Nanos Shell::tick(Nanos now) {
  if (now >= core_due_) {
    core_due_ = core_.tick(now);
  }
  if (now >= fetcher_due_) {
    fetcher_due_ = fetcher_.tick(now);
  }
  if (now >= prober_due_) {
    prober_due_ = prober_.tick(now);
  }
  if (now >= links_due_) {
    links_due_ = tick_links(now);
  }
  if (now >= pace_due_) {
    pace_due_ = pace_links(now);
  }
  settle();
  // Few and short-lived: asked every time.
  const Nanos dialing = dialer_->tick(now);
  const Nanos accepting = acceptor_->tick(now);
  const Nanos relaying = relay_->tick(now);
  const Nanos local = local_dialer_ ? local_dialer_->tick(now) : kNever;
  const Nanos local_accepting = local_acceptor_ ? local_acceptor_->tick(now) : kNever;
  settle();
  return std::min({core_due_, fetcher_due_, prober_due_, links_due_, pace_due_, dialing, accepting,
                   relaying, local, local_accepting});
}

Nanos Shell::tick_links(Nanos now) {
  Nanos next = kNever;
  for (auto& [id, peer] : peers_) {
    if (peer.link) {
      next = std::min(next, peer.link->tick(now));
    }
  }
  for (std::size_t i = leaving_.size(); i-- > 0;) {
    if (leaving_[i].link->depart() || now >= leaving_[i].deadline) {
      graveyard_.push_back(std::move(leaving_[i].link));
      leaving_.erase(leaving_.begin() + static_cast<std::ptrdiff_t>(i));
    } else {
      next = std::min({next, leaving_[i].deadline, now + 10 * kMillisecond});
    }
  }
  return next;
}

// After each thing that happened: lets the machines speak, the links send, and the dead go.
void Shell::settle() {
  mend();
  if (std::exchange(reconsider_, false)) {
    acceptor_->reconsider();
    if (local_acceptor_) {
      local_acceptor_->reconsider();
    }
  }
  pump();
  while (!to_flush_.empty()) {
    Link* link = to_flush_.back();
    to_flush_.pop_back();
    link->flush();
    pump();
  }
  graveyard_.clear();
  dialer_->sweep();
  acceptor_->sweep();
  relay_->sweep();
  if (local_dialer_) {
    local_dialer_->sweep();
  }
  if (local_acceptor_) {
    local_acceptor_->sweep();
  }
}

void Shell::on_ready(std::uint32_t) {
  mailbox_->take(taken_);
  for (Command& command : taken_) {
    std::visit([this](auto& one) { handle(one); }, command);
    pump();
  }
  taken_.clear();
}

void Shell::finish() {
  commands_.reset();
  refuse_commands();
  core_.close();
  fetcher_.close();
  prober_.close();
  relay_->close();
  settle();
  for (auto& [id, peer] : peers_) {
    cancel_dial(id);
    let_go(peer);
    if (peer.link) {
      peer.past += peer.link->tally(monotonic_now());
      leave(std::move(peer.link), kClosePatience);
    }
  }
  donor_.publish(nullptr);
  const Nanos give_up = monotonic_now() + kClosePatience;
  Nanos now = monotonic_now();
  tick_links(now);
  while (!leaving_.empty() && now < give_up) {
    poller_->wait(std::min<Nanos>(give_up - now, 10 * kMillisecond), [] {});
    now = monotonic_now();
    tick_links(now);
  }
  leaving_.clear();
  graveyard_.clear();
  to_flush_.clear();
  deaths_.reset();
  lives_.reset();
}

void Shell::refuse_commands() {
  std::vector<Command> rest = mailbox_->close();
  for (Command& command : rest) {
    if (auto* submit = std::get_if<SubmitCommand>(&command)) {
      end_op(submit->request.id, Outcome{.code = Code::closed, .message = explain(Code::closed)});
    } else if (auto* probe = std::get_if<ProbeCommand>(&command)) {
      end_op(probe->request.op, Outcome{.code = Code::closed, .message = explain(Code::closed)});
    } else if (auto* fetch = std::get_if<FetchCommand>(&command)) {
      end_op(fetch->request.op, Outcome{.code = Code::closed, .message = explain(Code::closed)});
    } else if (auto* asked = std::get_if<StatsCommand>(&command)) {
      asked->answer->set_value(stats());
    }
  }
}

// ---- commands -----------------------------------------------------------------------------------

void Shell::handle(SubmitCommand& command) {
  const OpRequest& request = command.request;
  if (closing_) {
    end_op(request.id, Outcome{.code = Code::closed, .message = explain(Code::closed)});
    return;
  }
  const Status status = core_.submit(request, monotonic_now());
  if (!status.ok()) {
    end_op(request.id,
           Outcome{.code = status.error().code, .message = status.error().message});
    return;
  }
  core_due_ = std::min(core_due_, request.deadline);
}

void Shell::handle(AbortCommand& command) {
  if (fetcher_.owns(command.op)) {
    fetcher_.abort(command.op);
  } else if (prober_.owns(command.op)) {
    prober_.abort(command.op);
  } else {
    core_.abort(command.op, monotonic_now());
  }
}

void Shell::handle(ListenCommand& command) { core_.listen(command.channel); }

void Shell::handle(FenceCommand& command) {
  core_.fence(command.attempt, command.kind, monotonic_now());
}

void Shell::handle(InstallCommand& command) {
  core_.install(command.view, command.starts, command.kind, monotonic_now());
}

void Shell::handle(PublishCommand& command) { donor_.publish(std::move(command.state)); }

void Shell::handle(FetchCommand& command) {
  const FetchRequest& request = command.request;
  if (closing_) {
    end_op(request.op, Outcome{.code = Code::closed, .message = explain(Code::closed)});
    return;
  }
  if (link_to(request.donor) == nullptr) {
    end_op(request.op,
           Outcome{.code = Code::peer_lost,
                   .message = "there is no link to donor " + request.donor.shorthand()});
    return;
  }
  fetcher_.start(request);
  fetcher_due_ = std::min(fetcher_due_, request.deadline);
}

void Shell::handle(StatsCommand& command) { command.answer->set_value(stats()); }

void Shell::handle(CloseCommand&) { closing_ = true; }

// ---- actions ------------------------------------------------------------------------------------

void Shell::pump() {
  Action action;
  while (core_.next(action)) {
    std::visit([this](auto& one) { act(one); }, action);
  }
  FetchAction fetching;
  while (fetcher_.next(fetching)) {
    std::visit([this](auto& one) { act(one); }, fetching);
  }
  ProbeAction probing;
  while (prober_.next(probing) || probe_answers_.next(probing)) {
    std::visit([this](auto& one) { act(one); }, probing);
  }
}

void Shell::act(Send& send) {
  if (Link* link = link_to(send.to)) {
    link->send_control(frame_of(send));
  }  // else the loss is known to whoever decides; this op is settled by the next view
}

void Shell::act(DataReady& ready) {
  if (Link* link = link_to(ready.peer)) {
    link->data_waiting();
    if (pace_due_ == kNever && link->pace_bytes_per_s() > 0) {
      pace_due_ = monotonic_now();
    }
  }
}

bool Shell::pull(Link& link, OutFrame& frame) {
  Send send;
  if (!core_.pull(link.peer(), send)) {
    return false;
  }
  frame = frame_of(send);
  return true;
}

void Shell::act(Release& release) { forget_buffers(release.op); }

void Shell::forget_buffers(OpId op) {
  for (auto& [id, peer] : peers_) {
    if (peer.link) {
      peer.link->forget(op);
    }
  }
  for (const Leaving& one : leaving_) {
    one.link->forget(op);
  }
}

void Shell::end_op(OpId op, Outcome outcome) {
  // The event first: whoever begins to watch the op when it is over finds it there.
  events_.push_quietly(OpEnded{op});
  if (ops_.finish(op, std::move(outcome))) {
    events_.nudge();
  }
}

void Shell::act(Complete& complete) {
  end_op(complete.op, Outcome{.code = complete.code,
                              .message = explain(complete.code),
                              .epoch = complete.epoch,
                              .sequence = complete.sequence,
                              .summary = complete.summary});
}

void Shell::act(Fenced& fenced) { events_.push(std::move(fenced)); }
void Shell::act(Installed& installed) {
  share_lines();
  events_.push(installed);
}

void Shell::act(Offered& offered) { events_.push(offered); }

void Shell::act(Blame& blame) {
  if (Link* link = link_to(blame.peer)) {
    link->fail(LinkEnd::protocol, blame.error.message);
  }
}

void Shell::act(FetchAsk& ask) {
  Link* link = link_to(ask.to);
  if (link == nullptr) {
    return;  // link_down() has ended the fetch
  }
  OutFrame frame;
  frame.header = encode_header(ask.header);
  frame.owned.resize(8);
  store_le(frame.owned.data(), ask.length);
  frame.payload = frame.owned;
  link->send_control(std::move(frame));
}

void Shell::act(FetchEnd& end) {
  forget_buffers(end.op);
  end_op(end.op, Outcome{.code = end.code,
                         .message = std::move(end.message),
                         .sequence = end.length,
                         .revision = end.revision});
}

}  // namespace reef
