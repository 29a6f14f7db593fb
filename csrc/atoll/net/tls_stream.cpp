#include "atoll/net/tls_stream.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace reef {

namespace {

constexpr std::size_t kRecordBytes = 16u << 10;  // TLS's own bound for the plain text of a record

}  // namespace

// OpenSSL's view of the two buffers.
struct TlsBuffers {
  static int write(BIO* bio, const char* bytes, int count) {
    auto& stream = *static_cast<TlsStream*>(BIO_get_data(bio));
    const auto* from = reinterpret_cast<const std::byte*>(bytes);
    stream.output_.insert(stream.output_.end(), from, from + count);
    return count;
  }
  static int read(BIO* bio, char* bytes, int count) {
    auto& stream = *static_cast<TlsStream*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    const std::size_t take =
        std::min(stream.filled_ - stream.taken_, static_cast<std::size_t>(count));
    if (take == 0) {
      BIO_set_retry_read(bio);
      return -1;
    }
    std::memcpy(bytes, stream.input_.data() + stream.taken_, take);
    stream.taken_ += take;
    return static_cast<int>(take);
  }
  static long control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

  static BIO_METHOD* method() {
    static BIO_METHOD* const made = [] {
      BIO_METHOD* one = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "atoll buffers");
      check(one != nullptr, "TlsStream: OpenSSL has no memory");
      BIO_meth_set_write(one, write);
      BIO_meth_set_read(one, read);
      BIO_meth_set_ctrl(one, control);
      return one;
    }();
    return made;
  }
};

TlsStream::TlsStream(ssl_st* ssl, Fd socket) : ssl_(ssl), socket_(std::move(socket)) {}

TlsStream::~TlsStream() { SSL_free(ssl_); }

Result<std::unique_ptr<Stream>> TlsStream::create(const TlsContext& tls, Fd socket, Side side) {
  ERR_clear_error();
  SSL* ssl = SSL_new(tls.get());
  BIO* bio = ssl == nullptr ? nullptr : BIO_new(TlsBuffers::method());
  if (bio == nullptr) {
    SSL_free(ssl);
    return Error{Code::io, ENOMEM, "TLS: OpenSSL has no memory for a connection"};
  }
  std::unique_ptr<TlsStream> stream(new TlsStream(ssl, std::move(socket)));
  BIO_set_data(bio, stream.get());
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl, bio, bio);  // owns it from now on
  side == Side::dialling ? SSL_set_connect_state(ssl) : SSL_set_accept_state(ssl);
  return std::unique_ptr<Stream>(std::move(stream));
}

// What OpenSSL's refusal means: EAGAIN, 0 for the end that the other side has said, or EPROTO.
int TlsStream::broken(int outcome) {
  switch (SSL_get_error(ssl_, outcome)) {
    case SSL_ERROR_WANT_READ: return EAGAIN;
    case SSL_ERROR_ZERO_RETURN: return 0;
    default: break;
  }
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  const long verdict = SSL_get_verify_result(ssl_);
  what_broke_ = std::string("TLS: ") + (reason == nullptr ? "the other side broke it" : reason);
  if (verdict != X509_V_OK) {
    what_broke_ += std::string(": ") + X509_verify_cert_error_string(verdict);
  }
  ERR_clear_error();
  return EPROTO;
}

std::string TlsStream::explain(int error) const {
  const bool told = error == EPROTO || error == ECONNRESET;
  return told && !what_broke_.empty() ? what_broke_ : strerror(error);
}

// Only when OpenSSL has taken all there was.
IoResult TlsStream::refill() {
  input_.resize(kInputBytes);
  while (true) {
    const ssize_t got = ::recv(socket_.get(), input_.data(), input_.size(), MSG_DONTWAIT);
    if (got >= 0) {
      taken_ = 0;
      filled_ = static_cast<std::size_t>(got);
      return {filled_, 0};
    }
    if (errno != EINTR) {
      return {0, errno};
    }
  }
}

IoResult TlsStream::secure() {
  while (true) {
    ERR_clear_error();
    const int done = SSL_do_handshake(ssl_);
    const int error = done == 1 ? 0 : broken(done);
    const IoResult sent = flush();  // an alert, too, that says what was wrong
    if (error != EAGAIN) {
      return {0, done == 1 || error != 0 ? error : ECONNRESET};
    }
    if (sent.error != 0 && sent.error != EAGAIN) {
      return sent;
    }
    const IoResult got = refill();
    if (got.bytes == 0 && got.error == 0) {
      what_broke_ = "TLS: the other side closed the connection during the handshake";
      return {0, ECONNRESET};
    }
    if (got.bytes == 0) {
      return got;
    }
  }
}

std::string TlsStream::holder() const {
  const std::unique_ptr<X509, void (*)(X509*)> shown(SSL_get_peer_certificate(ssl_), X509_free);
  if (shown == nullptr) {
    return {};
  }
  const std::unique_ptr<GENERAL_NAMES, void (*)(GENERAL_NAMES*)> names(
      static_cast<GENERAL_NAMES*>(
          X509_get_ext_d2i(shown.get(), NID_subject_alt_name, nullptr, nullptr)),
      GENERAL_NAMES_free);
  std::string holder;
  int uris = 0;
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type == GEN_URI) {
      const ASN1_STRING* uri = name->d.uniformResourceIdentifier;
      holder.assign(reinterpret_cast<const char*>(ASN1_STRING_get0_data(uri)),
                    static_cast<std::size_t>(ASN1_STRING_length(uri)));
      ++uris;
    }
  }
  ERR_clear_error();
  return uris == 1 ? holder : std::string();
}

bool TlsStream::holds_input() const { return taken_ < filled_ || SSL_pending(ssl_) > 0; }

IoResult TlsStream::read_parts(std::span<const iovec> parts, bool from_socket) {
  std::size_t total = 0;
  for (const iovec& part : parts) {
    std::size_t filled = 0;
    while (filled < part.iov_len) {
      ERR_clear_error();
      std::size_t got = 0;
      const int done =
          SSL_read_ex(ssl_, static_cast<std::byte*>(part.iov_base) + filled, part.iov_len - filled,
                      &got);
      if (done == 1) {
        filled += got;
        total += got;
        continue;
      }
      IoResult end{0, broken(done)};
      if (end.error == EAGAIN && from_socket) {
        end = refill();
        if (end.bytes > 0) {
          continue;
        }
      }
      // What has arrived is reported first; the next call meets the same end again.
      return total > 0 ? IoResult{total, 0} : end;
    }
  }
  return {total, 0};
}

int TlsStream::encrypt(const void* bytes, std::size_t count) {
  ERR_clear_error();
  std::size_t taken = 0;
  const int done = SSL_write_ex(ssl_, bytes, count, &taken);
  if (done != 1) {
    const int error = broken(done);
    return error == 0 ? EPIPE : error;
  }
  check(taken == count, "TlsStream: OpenSSL took part of a record");
  return 0;
}

// Whole records straight from the parts; what is smaller is gathered first.
IoResult TlsStream::write(std::span<const iovec> parts) {
  std::size_t total = 0;
  std::size_t index = 0;
  std::size_t at = 0;  // in parts[index]
  while (true) {
    // What was taken may be with the peer already: it is reported first, an error the next time.
    if (IoResult sent = flush(); sent.error != 0) {
      return total > 0 ? IoResult{total, 0} : sent;
    }
    if (index == parts.size()) {
      return {total, 0};
    }
    while (index < parts.size() && output_.size() < kOutputBytes) {
      const auto* from = static_cast<const std::byte*>(parts[index].iov_base) + at;
      const std::size_t left = parts[index].iov_len - at;
      int error = 0;
      if (record_.empty() && left >= kRecordBytes) {
        error = encrypt(from, kRecordBytes);
        at += kRecordBytes;
        total += kRecordBytes;
      } else {
        const std::size_t take = std::min(left, kRecordBytes - record_.size());
        record_.insert(record_.end(), from, from + take);
        at += take;
        total += take;
      }
      if (at == parts[index].iov_len) {
        ++index;
        at = 0;
      }
      if (!record_.empty() && (record_.size() == kRecordBytes || index == parts.size())) {
        error = encrypt(record_.data(), record_.size());
        record_.clear();
      }
      if (error != 0) {
        return total > 0 ? IoResult{total, 0} : IoResult{0, error};
      }
    }
    // No room for more: what was gathered must not wait for what may never come.
    if (const int error = record_.empty() ? 0 : encrypt(record_.data(), record_.size());
        error != 0) {
      return {0, error};
    }
    record_.clear();
  }
}

IoResult TlsStream::flush() {
  while (sent_ < output_.size()) {
    const ssize_t sent = ::send(socket_.get(), output_.data() + sent_, output_.size() - sent_,
                                MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) {
      sent_ += static_cast<std::size_t>(sent);
    } else if (errno != EINTR) {
      return {0, errno == ENOBUFS ? EAGAIN : errno};
    }
  }
  output_.clear();
  sent_ = 0;
  return {};
}

void TlsStream::finish_writing() {
  if (!finished_) {
    finished_ = true;
    ERR_clear_error();
    SSL_shutdown(ssl_);
    ERR_clear_error();
    (void)flush();  // a courtesy: the frames say by themselves what is complete
    ::shutdown(socket_.get(), SHUT_WR);
  }
}

}  // namespace reef
